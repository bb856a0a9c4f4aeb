#!/bin/bash
# Stops the tablets of the shard that serves nothing any more.

set -e

source ./env.sh

CELL=zone1 UID_BASE=200 ./vttablet-down.sh
