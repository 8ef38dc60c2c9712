// SPDX-License-Identifier: GPL-2.0
/*
 * The order of a direction's packets. Packets that are received as a batch pass PRE_ROUTING one after
 * the other before the first of them goes on. So a packet that jumps would overtake an earlier one
 * that does not. That earlier packet is noted at the end of PRE_ROUTING and lets no other of its
 * direction jump on this CPU until one of them is at the end of POST_ROUTING.
 *
 * The notes are hashed by connection. If another direction has the place of a note, no direction of
 * that place jumps until a packet of one of them leaves: then the batch has passed PRE_ROUTING. If
 * rules drop all packets, none of them would jump anyway. Softirq or process context.
 */
#include <linux/hash.h>
#include <linux/percpu.h>
#include <net/netfilter/nf_conntrack.h>

/* A note: more than one direction. */
#define NFZR_STAYED_MANY 1UL

static __always_inline unsigned int nfzr_stayed_place(const struct nf_conn *ct)
{
	return hash_ptr(ct, ilog2(NFZR_STAYED));
}

/* Returns a direction's note. The address of a ct is a multiple of more than 2. */
static __always_inline unsigned long nfzr_stayed_note(const struct nf_conn *ct, u8 dir)
{
	return (unsigned long)ct | (dir ? 2 : 0);
}

/* Returns whether an earlier packet of the direction may still be on its way. */
static __always_inline bool nfzr_has_stayed(const struct nfzr_observer __percpu *o,
					    const struct nf_conn *ct, u8 dir)
{
	unsigned long note = this_cpu_read(o->stayed[nfzr_stayed_place(ct)]);

	return unlikely(note) && (note == NFZR_STAYED_MANY || note == nfzr_stayed_note(ct, dir));
}

/* Notes a packet that goes on from PRE_ROUTING. */
static void nfzr_note_stayed(struct nfzr_observer __percpu *o, const struct nf_conn *ct, u8 dir)
{
	const unsigned int place = nfzr_stayed_place(ct);
	const unsigned long note = nfzr_stayed_note(ct, dir);
	const unsigned long was = this_cpu_read(o->stayed[place]);

	if (was != note)
		this_cpu_write(o->stayed[place], was ? NFZR_STAYED_MANY : note);
}

/* Ends the note of a packet that leaves POST_ROUTING. */
static void nfzr_note_left(struct nfzr_observer __percpu *o, const struct nf_conn *ct, u8 dir)
{
	if (unlikely(nfzr_has_stayed(o, ct, dir)))
		this_cpu_write(o->stayed[nfzr_stayed_place(ct)], 0);
}
