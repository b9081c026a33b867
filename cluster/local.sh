#!/usr/bin/env bash
# A cluster on this machine, for trials: a Ray head with workers, an object store and MLflow.
#     cluster/local.sh up [--workers 2]     start the services that are not running, and print their addresses
#     eval "$(cluster/local.sh env)"        set this shell's environment so that commands use the cluster
#     cluster/local.sh status               show which services run and which have died
#     cluster/local.sh down                 end all services; the data of the store and of MLflow stays in .cluster
here=$(dirname "${BASH_SOURCE[0]}")
python=$here/../.venv/bin/python
[ -x "$python" ] || { echo "error: there is no .venv here: make it with \`make lint\`" >&2; exit 2; }
exec "$python" "$here/local.py" "$@"
