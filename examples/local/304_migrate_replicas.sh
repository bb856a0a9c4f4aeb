#!/bin/bash
# Lets the rdonly and replica tablets of the new shards serve.

set -e

source ./env.sh

./lvtctl.sh MigrateServedTypes customer/0 rdonly
./lvtctl.sh MigrateServedTypes customer/0 replica
