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

#include "mem/array.c"

#include "net/device.c"
#include "net/netns.c"
#include "net/notifier.c"

#include "fs/proc.c"

#include "nf/conn.c"
#include "nf/conncount.c"
#include "nf/packet.c"
#include "net/route.c"
#include "net/route4.c"
#include "net/route6.c"
#include "nf/track.c"
#include "nf/verify.c"

#include "entry/last_found.c"
#include "entry/table.c"

#ifdef NFZR_KUNIT
#include "kunit.c"
#endif
