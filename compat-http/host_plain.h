/*
 * host_plain - is a Host header this host as what it is? Against pages of strangers that a browser was led to by a name of theirs (DNS rebinding).
 *
 *     if (host != NULL && !host_is_plain(host)) …403…
 */
#pragma once

#include <stdbool.h>

/* "localhost" or a numeric address, with or without a port. */
bool host_is_plain(const char *host);
