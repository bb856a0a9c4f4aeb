#!/bin/bash
# Brings up the tablets of the two new shards of customer and copies its schema to them.

set -e

source ./env.sh

CELL=zone1 KEYSPACE=customer SHARD=-80 UID_BASE=300 ./vttablet-up.sh
CELL=zone1 KEYSPACE=customer SHARD=80- UID_BASE=400 ./vttablet-up.sh

./lvtctl.sh InitShardMaster -force customer/-80 zone1-300
./lvtctl.sh InitShardMaster -force customer/80- zone1-400
./lvtctl.sh CopySchemaShard customer/0 customer/-80
./lvtctl.sh CopySchemaShard customer/0 customer/80-
