/*
 * deploy_conf - services-config.json and dmsghttp-config.json: where the services of a deployment are (docs/protocol/services.md §10.2, §10.3).
 *
 * Both files are read by one function, in all spellings that were seen: with the environments "prod" and "test" or without, URLs with dmsg:// or as bare PK[:PORT] (port 80),
 * servers in either. http:// URLs go to url[], dmsg:// ones to dmsg_url[], wherever they stood. Unknown members are ignored.
 *
 * Written is the form that the peers write: members in their order, what is empty left out (services) or "" (dmsghttp).
 *
 * A struct deploy_conf owns everything in it. Limits: files of DEPLOY_CONF_FILE bytes, DEPLOY_CONF_LIST elements of a list. Errors: ERR_FORMAT, ERR_KEY with a line for
 * people in why; ERR_NOT_FOUND (no such environment), ERR_TOO_LONG, ERR_LIMIT, ERR_NOMEM, system errors.
 *
 *     struct deploy_conf c;
 *     rc = deploy_conf_load(&c, "dmsghttp-config.json", "prod", why, sizeof(why));
 *     …c.dmsg_url[DEPLOY_DMSG_DISCOVERY], c.servers…
 *     deploy_conf_free(&c);
 */
#pragma once

#include "base/addr.h"
#include "base/json.h"

#define DEPLOY_CONF_FILE ((size_t)4 << 20)
#define DEPLOY_CONF_LIST 4096

enum deploy_service {
    DEPLOY_CONF, /* the config bootstrapper */
    DEPLOY_DMSG_DISCOVERY,
    DEPLOY_TRANSPORT_DISCOVERY,
    DEPLOY_ADDRESS_RESOLVER,
    DEPLOY_ROUTE_FINDER,
    DEPLOY_UPTIME_TRACKER,
    DEPLOY_SERVICE_DISCOVERY,
    DEPLOY_SERVICE__COUNT
};

enum deploy_list {
    DEPLOY_ROUTE_SETUP_NODES,
    DEPLOY_TRANSPORT_SETUP,
    DEPLOY_STUN_SERVERS,
    DEPLOY_SURVEY_WHITELIST,
    DEPLOY_LIST__COUNT
};

struct deploy_texts {
    char **v;
    size_t n;
};

struct deploy_conf {
    char *url[DEPLOY_SERVICE__COUNT];      /* NULL = none */
    char *dmsg_url[DEPLOY_SERVICE__COUNT]; /* "dmsg://PK:PORT" */
    struct deploy_texts list[DEPLOY_LIST__COUNT];
    char *dns_server;
    struct addr_peer *servers;
    size_t n_servers;
};

/* environment: "prod" or "test", for files that have them. *c is defined in any case. */
int deploy_conf_parse(struct deploy_conf *c, const char *text, size_t n, const char *environment,
                      char *why, size_t why_size) __attribute__((warn_unused_result));
int deploy_conf_load(struct deploy_conf *c, const char *path, const char *environment, char *why,
                     size_t why_size) __attribute__((warn_unused_result));
void deploy_conf_free(struct deploy_conf *c);

/* One environment's object, without a name around it. with_conf: the member "conf" too, which a bootstrapper leaves out. */
void deploy_conf_write_services(struct json_out *o, const struct deploy_conf *c, bool with_conf);
void deploy_conf_write_dmsghttp(struct json_out *o, const struct deploy_conf *c);
