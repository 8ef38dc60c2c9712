// SPDX-License-Identifier: GPL-2.0
/*
 * The C helpers as one translation unit; see include/nf_zoneroute_helpers.h.
 */
#include "nf_zoneroute_helpers.h"
#include "layout_generated.h"

#include "sync/lock.c"
#include "sync/percpu.c"
#include "sync/rcu.c"
#include "sync/time.c"
#include "sync/work.c"

#include "mem/array.c"
#include "mem/ids.c"

#include "net/device.c"
#include "net/device_hooks.c"
#include "net/dst.c"
#include "net/rtm.c"
#include "net/fib.c"
#include "net/netns.c"
#include "net/notifier.c"

#include "fs/proc.c"

#include "nf/conn.c"
#include "nf/packet.c"
#include "nf/packet4.c"
#include "nf/packet6.c"
#include "nf/pending.c"
#include "nf/track.c"
#include "nf/attach.c"
#include "nf/ruleset.c"
#include "nf/order.c"
#include "nf/jump.c"
#include "nf/leave.c"
#include "nf/observe.c"
#include "nf/seat.c"

#include "entry/table.c"
#include "entry/lookup.c"
#include "entry/ingress.c"

#ifdef NFZR_KUNIT
#include "kunit.c"
#endif
