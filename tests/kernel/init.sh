#!/bin/busybox sh
# The first process of an emulated machine: runs what /programs/list names, two at a time, shows what failed, and turns
# the machine off.
export PATH=/usr/bin:/bin HOME=/ LB_AGENT_BIN=/programs/lb-agent LB_SLOWER=6
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
echo "== Linux $(uname -r)"
xargs -n 1 -P 2 /each </programs/list
cat /tmp/*.failed 2>/dev/null
dmesg | grep -A 30 -E 'BUG: |WARNING: CPU: |Oops: '
echo "== off after $(cut -d. -f1 /proc/uptime) s"
poweroff -f
