#include "base/version.h"

#ifndef KADMSG_VERSION
#define KADMSG_VERSION "unknown"
#endif

const char *version_str(void)
{
    return KADMSG_VERSION;
}
