/* dmsg-server.json of any bytes: what is accepted is a whole configuration, what is refused says why,
 * and the secret key is nowhere in what is said. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "node/server_conf.h"

#define SK "0000000000000000000000000000000000000000000000000000000000000001"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    if (crypto_init() != 0)
        abort();
    return 0;
}

static void warn(void *arg, const char *text)
{
    (void)arg;
    assert(text[0] != '\0' && strlen(text) < 200 && strchr(text, '\n') == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct server_conf c;
    char why[SERVER_CONF_WHY] = "";
    char *text = malloc(size > 0 ? size : 1);
    if (text == NULL)
        abort();
    if (size > 0)
        memcpy(text, data, size);
    int rc = server_conf_parse(&c, text, size, warn, NULL, why, sizeof(why));
    free(text);
    if (rc == 0) {
        assert(!pubkey_is_null(&c.pk) && c.log_level != NULL && c.max_sessions > 0);
        assert(c.n_peers == 0 || c.peers[0].at.port != 0);
    } else {
        assert(why[0] != '\0' && strstr(why, SK) == NULL);
    }
    server_conf_free(&c);
    return 0;
}
