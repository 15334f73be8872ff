#include "compat-http/host_plain.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

bool host_is_plain(const char *host)
{
    char name[INET6_ADDRSTRLEN + 1];
    struct in6_addr six;
    struct in_addr four;
    bool bracket = host[0] == '[';
    size_t n = bracket ? strcspn(host + 1, "]") : strcspn(host, ":");
    if (n >= sizeof(name))
        return false;
    memcpy(name, host + (bracket ? 1 : 0), n);
    name[n] = '\0';
    return bracket ? inet_pton(AF_INET6, name, &six) == 1
                   : strcasecmp(name, "localhost") == 0 || inet_pton(AF_INET, name, &four) == 1;
}
