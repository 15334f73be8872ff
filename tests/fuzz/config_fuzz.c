/* A configuration file of any bytes: what is accepted is within the limits of the table, what is
 * refused says why, and nothing that was loaded points into the text. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "node/config.h"

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

static int run(struct cmdline *cl)
{
    (void)cl;
    return 0;
}

static const struct cmd node = {.name = "node",
                                .help = "x",
                                .opts = config_flags,
                                .opts_size = sizeof(struct node_opts),
                                .run = run};

static void check_limits(const struct node_opts *o)
{
    assert(o->sessions >= 1 && o->sessions <= 32);
    assert(o->max_sessions <= 1000000);
    assert(o->commit >= 1000000 && o->commit <= UINT64_C(60000000000));
    assert(o->pk_threads <= 64);
    assert(o->bootstrap.n <= CMD_LIST_MAX && o->trusted.n <= CMD_LIST_MAX);
    for (size_t i = 0; i < o->bootstrap.n; i++)
        assert(o->bootstrap.v[i].at.port != 0 && !pubkey_is_null(&o->bootstrap.v[i].pk));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cmdline cl;
    char name[] = "node", *argv[] = {name}, why[CONFIG_WHY] = "";
    char *text = malloc(size > 0 ? size : 1);
    if (text == NULL || !cmdline_parse(&cl, &node, 1, argv, stdout, stderr))
        abort();
    if (size > 0)
        memcpy(text, data, size);
    int rc = config_parse(&cl, text, size, why, sizeof why);
    free(text);
    assert((rc != 0) == (why[0] != '\0'));
    check_limits(cl.opts);
    const struct node_opts *o = cl.opts;
    if (rc == 0 && o->store != NULL)
        assert(strlen(o->store) < size);
    cmdline_free(&cl);
    return 0;
}
