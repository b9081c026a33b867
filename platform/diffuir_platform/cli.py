"""The command line `diffuir`: options in, one call into the package that does it, an exit code out.

Exit codes: 0, all done; 1, done, but some inputs failed and are named; 2, it could not start, with one sentence.
Each command imports what it needs when it runs, so that `--help` does not wait for torch and Ray.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

app = typer.Typer(
    help="Train, run and serve DiffUIR: one model that removes rain, snow, haze, darkness and blur from photos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Weights = Annotated[
    str | None,
    typer.Option(help="Weights: .safetensors of ours or a release .pt.", show_default="shipped"),
]
Steps = Annotated[int, typer.Option(help="Sampling steps, 1 to 1000.")]
Seed = Annotated[int, typer.Option(help="Seed of the restore's noise.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="float32, bfloat16, or auto: the faster one, measured.")]


Cluster = Annotated[
    str | None,
    typer.Option(
        help="A Ray cluster to join (auto, host:port), or to submit to and follow (http://HEAD:8265).",
        show_default="the config's, else RAY_ADDRESS, else start one here",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings that replace the file's.", show_default=False),
]


def main() -> None:
    """The console script."""
    sys.exit(plainly(app))


def plainly(run: Callable[[], int | None]) -> int | None:
    """What `run` returns; a UserError becomes its one sentence on stderr and exit code 2."""
    try:
        return run()
    except KeyboardInterrupt:
        print("stopped: the same command goes on", file=sys.stderr)
        return 130
    except Exception as error:
        from diffuir_core.errors import UserError

        if not isinstance(error, UserError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"diffuir {version('diffuir')}")
        raise typer.Exit


def _options_from(model: Any, arguments: dict[str, Any]) -> Any:
    """The settings among a command's arguments; those that are out of range are a UserError."""
    from .config import parse_config

    return parse_config(
        model,
        {key: value for key, value in arguments.items() if key in model.model_fields and value is not None},
        "the options",
    )


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def restore(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A photo; a folder or s3:// prefix; a pattern; .txt or .parquet lists of URIs; .tar shards.",
        ),
    ],
    target: Annotated[
        str, typer.Argument(metavar="OUT", help="A folder or s3:// prefix, or for one photo also a file.")
    ],
    weights: Weights = None,
    steps: Steps = 3,
    strength: Annotated[float, typer.Option(help="How much of the change is made, 0 to 1.")] = 1.0,
    equalise: Annotated[
        bool, typer.Option("--equalise", help="Equalise histograms first (published low-light weights).")
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: Annotated[
        int | None,
        typer.Option(help="Side of tiles for larger photos.", show_default="whole where memory allows"),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Most photos handed to the model at once.", show_default="a second's work"),
    ] = None,
    models: Annotated[
        int | None,
        typer.Option(help="Processes that hold a model.", show_default="as many as there is room for"),
    ] = None,
    gpu_share: Annotated[float, typer.Option(help="Of a GPU that each model takes.")] = 1.0,
    attempts: Annotated[
        int, typer.Option(help="Deaths of its own process after which a photo counts as failed.")
    ] = 3,
    include: Annotated[
        list[str] | None, typer.Option(help="Keys to take, a pattern; may be repeated.", show_default="all")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Keys to leave out, a pattern; may be repeated.", show_default="none"),
    ] = None,
    column: Annotated[str, typer.Option(help="Of a .parquet list, the one with the URIs.")] = "uri",
    truncated: Annotated[
        bool, typer.Option("--truncated", help="Take files that end too early as far as they go.")
    ] = False,
    exif: Annotated[str, typer.Option(help="Keep it without-gps, with-gps, or none of it.")] = "without-gps",
    format: Annotated[
        str | None,
        typer.Option(help="jpeg, png, webp, tiff or bmp.", show_default="each photo's own"),
    ] = None,
    quality: Annotated[int, typer.Option(help="Quality of JPEG and lossy WebP, 1 to 100.")] = 95,
    address: Annotated[
        str | None,
        typer.Option(
            help="A Ray cluster to join (auto, host:port), or to submit to and follow (http://HEAD:8265).",
            show_default="RAY_ADDRESS, else start one here",
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, whatever an earlier run left in OUT.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try only what failed before, once more.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare what is in OUT with its ledger, and do nothing else.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Restore a sample, write nothing, and estimate the whole.")
    ] = False,
    nodes: Annotated[int, typer.Option(help="Of --plan: how many nodes there would be.")] = 1,
    price: Annotated[float, typer.Option(help="Of --plan: what a node costs in an hour.")] = 0.0,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what would be done to each photo, and do nothing.")
    ] = False,
) -> None:
    """Restore a photo, or all photos of a collection, under the same relative paths.

    The same command again does what is not done yet: OUT/_diffuir holds a ledger with a row for each photo.
    """
    from .restore import RestoreOptions
    from .restore.commands import run_explain, run_plan, run_restore, run_verify

    options = _options_from(RestoreOptions, locals())
    if plan:
        raise typer.Exit(run_plan(source, target, options, nodes, price))
    if verify:
        raise typer.Exit(run_verify(target))
    if explain:
        raise typer.Exit(run_explain(source, target, options))
    from .runtime import cluster_address, takes_jobs

    where = cluster_address(options.address)
    if where is not None and takes_jobs(where):
        from .restore.job import RestoreJob, submit_restore

        job = RestoreJob(
            source=source, target=target, restart=restart, retry_failed=retry_failed, **options.model_dump()
        )
        raise typer.Exit(submit_restore(job, where))
    raise typer.Exit(run_restore(source, target, options, restart, retry_failed))


def _ending_with(more: Callable[[], str]) -> type[typer.core.TyperCommand]:
    """A command whose help ends with what `more` gives, which is asked only when it is shown."""

    class Command(typer.core.TyperCommand):
        def format_help(self, ctx: Any, formatter: Any) -> None:
            super().format_help(ctx, formatter)
            typer.echo(more())

    return Command


def _settings_of(package: str, name: str) -> str:
    """Every setting of a model of one of our packages with its default."""
    from importlib import import_module

    from .config import describe_settings

    settings = getattr(import_module(f".{package}", __package__), name)
    return f"Settings, in CONFIG or as key=value:\n\n{describe_settings(settings)}"


def _layouts() -> str:
    from .data.layouts import describe_layouts

    return f"Layouts, with the paths below ROOT (what pairs have in common is in braces):\n\n{describe_layouts()}"


@app.command(cls=_ending_with(lambda: _settings_of("train", "TrainConfig")))
def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A YAML file, such as jobs/train-quick.yaml.")
    ],
    overrides: Overrides = None,
    overwrite: Annotated[
        bool, typer.Option(help="Begin anew where a run of that name exists, instead of going on with it.")
    ] = False,
    address: Cluster = None,
) -> None:
    """Train a model, or go on with the run of that name where it was stopped."""
    from .config import load_config
    from .runtime import cluster_address, takes_jobs
    from .train import TrainConfig
    from .train import train as run

    settings = load_config(TrainConfig, config, overrides or ())
    where = cluster_address(address or settings.address)
    if where is not None and takes_jobs(where):
        from .train.job import submit_training

        raise typer.Exit(submit_training(settings, overwrite, where))
    run(settings.model_copy(update={"address": where}), overwrite)


@app.command(cls=_ending_with(lambda: _settings_of("sweep", "SweepConfig")))
def sweep(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A YAML file, such as jobs/sweep-quick.yaml.")
    ],
    overrides: Overrides = None,
    address: Cluster = None,
) -> None:
    """Train a model for every point of a grid, and make a table and a plot of what they reach.

    The same command again trains what is missing. Exit code 1: some runs failed and are named.
    """
    from .config import load_config
    from .runtime import cluster_address, takes_jobs
    from .sweep import SweepConfig

    settings = load_config(SweepConfig, config, overrides or ())
    where = cluster_address(address or settings.train.address)
    if where is not None and takes_jobs(where):
        from .sweep.job import submit_sweep

        raise typer.Exit(submit_sweep(settings, where))
    from .sweep.run import run_sweep

    common = settings.train.model_copy(update={"address": where})
    raise typer.Exit(run_sweep(settings.model_copy(update={"train": common})))


@app.command()
def evaluate(
    pairs: Annotated[
        Path, typer.Argument(metavar="PAIRS", help="A folder with degraded/ and clean/, or of such folders.")
    ],
    weights: Weights = None,
    steps: Steps = 3,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "float32",
    channel: Annotated[str, typer.Option(help="Measure on y (luma) or rgb.")] = "y",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Keep table.md, results.json and the restored photos here.", show_default="nowhere"
        ),
    ] = None,
) -> None:
    """Restore test pairs and print PSNR and SSIM before and after, per set."""
    from .evaluate.commands import run_evaluate
    from .restore import RestoreOptions

    options = _options_from(RestoreOptions, locals())
    raise typer.Exit(run_evaluate(pairs, options, channel, out))


@app.command(cls=_ending_with(_layouts))
def index(
    root: Annotated[str, typer.Argument(metavar="ROOT", help="A folder: a path or s3://bucket/path.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="The index, a Parquet file; a path or s3://.")],
    layout: Annotated[str, typer.Option(help="How the files lie below ROOT, a name of the list below.")],
    task: Annotated[
        str | None, typer.Option(help="Of pairs and unpaired photos: haze, rain, ...", show_default=False)
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="The data set's name, where it is open.", show_default="ROOT's name")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The split's name, where it is open.", show_default="the layout's")
    ] = None,
    equalise: Annotated[
        bool, typer.Option("--equalise", help="Low light: note that histograms are to be equalised first.")
    ] = False,
    mismatched: Annotated[
        float, typer.Option(help="Largest share of a split's files that may have no match, 0 to 1.")
    ] = 0.01,
    pack: Annotated[
        str | None,
        typer.Option(help="A folder to copy the photos into, in large files.", show_default="leave them"),
    ] = None,
) -> None:
    """List a data set, match its pairs, and write an index to train and evaluate with."""
    from .data.building import IndexOptions
    from .data.commands import run_index

    raise typer.Exit(run_index(root, out, _options_from(IndexOptions, locals())))


@app.command(cls=_ending_with(lambda: _settings_of("serve", "ServeSettings")))
def serve(
    overrides: Overrides = None,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file, such as jobs/serve.yaml.", show_default=False)
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", show_default="8000")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Of the one model: a file, a URI, or models:/NAME@ALIAS.", show_default="shipped"),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster to join (auto, host:port).", show_default="start one here"),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print what `serve deploy` takes, and do nothing else.")
    ] = False,
) -> None:
    """Serve the API and a page to try it, until Ctrl-C."""
    from .config import load_config
    from .serve import ServeSettings
    from .serve.commands import deployable, run_serve

    given: dict[str, Any] = {"host": host, "port": port, "address": address}
    if weights is not None:
        given["models"] = {"default": weights}
    loaded = load_config(ServeSettings, config, overrides or ())
    named = {name: value for name, value in given.items() if value is not None}
    settings = _options_from(ServeSettings, {**loaded.model_dump(), **named})
    if print_config:
        typer.echo(deployable(settings), nl=False)
        return
    raise typer.Exit(run_serve(settings))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the photos and the contact sheet go.")] = Path("demo"),
    weights: Weights = None,
    steps: Steps = 3,
    seed: Seed = 0,
) -> None:
    """Degrade bundled photos in five ways, restore them, and write a contact sheet."""
    from .evaluate.commands import run_demo
    from .restore import RestoreOptions

    run_demo(out, _options_from(RestoreOptions, locals()))


if __name__ == "__main__":
    main()
