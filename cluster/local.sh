#!/usr/bin/env bash
# A cluster on this machine, for trying things out: a Ray head with workers, an object store and MLflow.
#     cluster/local.sh up [--workers 2]     start what is not running, and print what leads to it
#     eval "$(cluster/local.sh env)"        lead this shell to it
#     cluster/local.sh status               what is running, and what has died
#     cluster/local.sh down                 end it; what the store and MLflow hold stays in .cluster
here=$(dirname "${BASH_SOURCE[0]}")
python=$here/../.venv/bin/python
[ -x "$python" ] || { echo "error: there is no .venv here: make it with \`make lint\`" >&2; exit 2; }
exec "$python" "$here/local.py" "$@"
