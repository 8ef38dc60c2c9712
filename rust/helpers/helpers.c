// SPDX-License-Identifier: GPL-2.0
/*
 * The C helpers, one translation unit; see include/nf_zoneroute_helpers.h.
 */
#include "nf_zoneroute_helpers.h"
#include "layout_generated.h"

#include "array.c"
#include "conncount.c"
#include "conntrack.c"
#include "events.c"
#include "hash.c"
#include "misc.c"
#include "packet.c"
#include "recent.c"
#include "route.c"
#include "route4.c"
#include "route6.c"
#include "track.c"
#include "verify.c"

#ifdef NFZR_KUNIT
#include "kunit.c"
#endif
