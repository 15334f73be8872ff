#include "compat-http/health_text.h"

#include <stdio.h>
#include <time.h>

#include "base/version.h"

char *health_text_time(char out[HEALTH_TIME], int64_t wall_ns)
{
    struct tm tm = {0};
    char day[40];
    time_t s = (time_t)(wall_ns / 1000000000);
    gmtime_r(&s, &tm);
    strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out, HEALTH_TIME, "%s.%09dZ", day, (int)(wall_ns % 1000000000));
    return out;
}

static void text(struct json_out *o, const char *name, const char *value)
{
    json_out_name(o, name);
    json_out_str(o, value);
}

void health_text_write(struct json_out *o, const char *name, const char *started,
                       const char *dmsg_address)
{
    if (name != NULL)
        text(o, "service_name", name);
    json_out_name(o, "build_info");
    json_out_object(o);
    text(o, "version", version_str());
    text(o, "commit", "unknown");
    text(o, "date", "unknown");
    json_out_object_end(o);
    text(o, "started_at", started);
    if (dmsg_address != NULL)
        text(o, "dmsg_address", dmsg_address);
}
