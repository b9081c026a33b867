"""The command `diffuir analyse`."""

from __future__ import annotations

from ..command_line import SettingsCommand
from ..restore.inputs import check_output
from ..storage import write_bytes
from .settings import AnalyseSettings


def run_analyse(settings: AnalyseSettings) -> int:
    """Make a table or a picture of the paper from a finished sweep, pairs or a photo.

    Its figures are printed, and written beside it.
    """
    check_output(str(settings.out))
    stem = settings.out / settings.analysis.replace("-", "_")
    if settings.analysis in ("table-2", "table-3"):
        from .sweeps import table

        text = table(settings.analysis, settings.source)
        write_bytes(f"{stem}.md", text.encode())
        print(f"{text}\nwritten: {stem}.md")
        return 0
    picture, scores = _picture(settings)
    lines = [f"{name}: {value}" for name, value in scores.items()]
    write_bytes(f"{stem}.png", picture)
    write_bytes(f"{stem}.txt", "".join(f"{line}\n" for line in lines).encode())
    print("\n".join([*lines, f"written: {stem}.png and {stem}.txt"]))
    return 0


def _picture(settings: AnalyseSettings) -> tuple[bytes, dict[str, str]]:
    if settings.analysis == "batch-size":
        from .sweeps import batch_size_plot

        return batch_size_plot(settings.source)
    if settings.analysis in ("features", "attention"):
        from .network import attention_plot, features_plot

        return (features_plot if settings.analysis == "features" else attention_plot)(settings)
    from .pictures import panels, steps_plot

    return (steps_plot if settings.analysis == "steps" else panels)(settings)


analyse_command = SettingsCommand(
    run_analyse, AnalyseSettings, arguments={"analysis": "ANALYSIS", "source": "SOURCE"}
)
