/*
 * socks_talk - a guest (apps/guest.h) that speaks SOCKS5 (apps/socks.h): the glue between the two, for the SOCKS server and the resolving proxy.
 */
#pragma once

#include "apps/guest.h"
#include "apps/socks.h"

struct socks_talk {
    struct socks socks; /* zeroed: at its beginning */
};

/* In input(): SOCKS_WAIT: dial for talk->socks.dest now; else there is nothing to do, and the guest may be gone. */
enum socks_state socks_talk_input(struct guest *g, struct socks_talk *t);
/* In led(): answers, and joins or leaves. */
void socks_talk_led(struct guest *g, struct socks_talk *t, int err, const char *text);
/* Refuses without a dial. */
void socks_talk_refuse(struct guest *g, struct socks_talk *t, enum socks_code code,
                       const char *text);
/* Puts the answer "connected" before what the guest is told next. */
void socks_talk_accept(struct guest *g, struct socks_talk *t);
