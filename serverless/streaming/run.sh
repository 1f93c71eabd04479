#!/bin/bash
# What the Lambda Web Adapter starts: the server of `recollect serve`, from this very folder.
cd "$(dirname "$0")"
exec python3 -m recollect serve
