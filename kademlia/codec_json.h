/*
 * codec_json - struct kad_msg to and from the JSON bodies of the Go peers
 * (docs/protocol/dht.md §3.2-§3.4).
 *
 * Writing gives the exact bytes of their encoder: member order, no blanks, their string escapes;
 * mirror_target only where there is one (builds before it ignore it and would store the item under
 * another slot), last_seen always "unset": readers ignore it, and when we heard a peer is nobody's
 * business.
 *
 * Reading is as lenient and as strict as their decoder: IDs are arrays of numbers (short ones are
 * filled with zeros, extra numbers ignored), null is the zero value, member names match without
 * regard to case, unknown members are skipped, the last duplicate wins, nothing but blanks may
 * follow; bad base64, hex, keys (also x >= p, which crashes theirs), numbers or types make the
 * whole message malformed. The body of a PING request may be anything: what cannot be read offers nothing.
 *
 * Beyond theirs: contacts of an answer are kept only when id = H(pk); null keys, strangers and
 * everything after the KAD_K-th good one are dropped and counted (bad_contacts), and only
 * 2 * KAD_K contacts are looked at. Their keys have the form of a key, but whether they are points
 * of the curve shows when they are dialled. Pages and batches of more than KAD_MSG_MAX_ITEMS are
 * refused (ERR_LIMIT).
 *
 * Two members are ours, and unknown to the peers, who skip them: "native" (a number) in PING and its
 * answer is the version of the native dialect that the sender speaks; "network" (16 hex digits) in
 * every message is the tag of its private network, left out in the default one.
 *
 * Everything here is a pure function; any thread. Errors: ERR_FORMAT or ERR_SHORT (malformed),
 * ERR_LIMIT, ERR_UNSUPPORTED (no such method in this dialect), ERR_TOO_LONG (frame above KAD_FRAME_MAX), ERR_NOMEM.
 *
 *     rc = kad_json_decode(&req, frame.method, false, frame.body, frame.body_len);
 *     ...
 *     rc = kad_json_encode(&bytes, &n, &rsp);  send(bytes, n);  free(bytes);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kademlia/frame.h"
#include "kademlia/msg.h"

/* Read a body. method: of the frame for requests, of the call for responses (what the response's
 * frame says is ignored, as the peers do). On errors *out is cleared; on success the caller clears
 * it. Items of a request whose target is absent or zero have has_target false; a PUT_VALUE request
 * without item has a zero item, which no signature fits. */
int kad_json_decode(struct kad_msg *out, unsigned method, bool response, const void *body, size_t n)
    __attribute__((warn_unused_result));

/* Write the whole frame of a message into a malloc'ed buffer (caller frees) and set m->wire_bytes.
 * Requests carry m->sender and its ID, as does the response to PING. A refused item's text is
 * error_text when there is one (PUT_VALUE), else that of kad_json_error_text(). */
int kad_json_encode(uint8_t **out, size_t *n, struct kad_msg *m)
    __attribute__((warn_unused_result));

/* The item alone as JSON text, as it is kept in the peers' Redis (dht.md §2.1, §5.5), malloc'ed (caller
 * frees). ERR_NOMEM. */
int kad_json_item(char **out, size_t *n, const struct item *it) __attribute__((warn_unused_result));

/* Bytes that the item adds to a GET_ITEMS response or a PUT_BATCH request at most, its target
 * included: to cut pages before they pass KAD_FRAME_MAX. */
size_t kad_json_item_size(const struct item *it);

/* Text on the wire for a refused item: the peers' own where they have one (item_error_text()), else
 * "dht: " and ours. it may be NULL. Static or in buf. */
const char *kad_json_error_text(int err, const struct item *it, char buf[static 64]);

/* Our error for such a text: ERR_TOO_LONG, ERR_SIG, ERR_SEQ, ERR_QUOTA, ours; any other
 * ERR_REFUSED.
 */
int kad_json_error_from_text(const char *text, size_t n);
