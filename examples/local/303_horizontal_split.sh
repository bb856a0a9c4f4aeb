#!/bin/bash
# Copies the rows of customer/0 to the shards that will hold them and starts filtered replication.

set -e

source ./env.sh

# shellcheck disable=SC2086
vtworker \
  $TOPOLOGY_FLAGS \
  -cell zone1 \
  -log_dir "$VTDATAROOT/tmp" \
  -alsologtostderr \
  -use_v3_resharding_mode \
  SplitClone -min_healthy_rdonly_tablets=1 customer/0
