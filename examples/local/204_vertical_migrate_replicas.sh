#!/bin/bash
# Lets the rdonly and replica tablets of customer serve the tables that moved.

set -e

source ./env.sh

./lvtctl.sh MigrateServedFrom customer/0 rdonly
./lvtctl.sh MigrateServedFrom customer/0 replica
