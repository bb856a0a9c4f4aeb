#!/bin/bash
# Lets the masters of the new shards serve.

set -e

source ./env.sh

./lvtctl.sh MigrateServedTypes customer/0 master
