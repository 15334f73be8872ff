/* JSON: any bytes parse or fail; what parses survives being rewritten, in both dialects. */
#include <assert.h>
#include <string.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Rewrite the value at data; returns the parser's verdict. */
static int rewrite(struct json_out *o, enum json_dialect dialect, const void *data, size_t size)
{
    struct json_in j = json_in_init(data, size);

    json_out_grow(o, dialect, 8 * size + 16);
    json_out_copy_value(o, &j);
    return json_in_end_value(&j);
}

/* The value readers on arbitrary positions. */
static void read_values(const uint8_t *data, size_t size)
{
    struct json_in j = json_in_init(data, size);
    char text[64];
    uint64_t u;
    int64_t i;
    size_t n;
    bool b;

    for (size_t k = 0; k < size && j.err == 0 && json_in_peek(&j) != JSON_TOK_END; k++) {
        switch (data[k] % 7) {
        case 0:
            json_in_u64(&j, &u);
            break;
        case 1:
            json_in_i64(&j, &i);
            break;
        case 2:
            json_in_bool(&j, &b);
            break;
        case 3:
            if (json_in_string(&j, text, sizeof text, &n))
                assert(n < sizeof text && text[n] == '\0');
            break;
        case 4:
            json_in_skip(&j);
            break;
        case 5:
            if (json_in_name_is(&j, "sequence"))
                json_in_member(&j);
            break;
        default:
            json_in_next(&j);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int d = JSON_FAST; d <= JSON_STD; d++) {
        struct json_out once, twice;

        if (rewrite(&once, (enum json_dialect)d, data, size) == 0) {
            assert(once.err == 0);
            assert(rewrite(&twice, (enum json_dialect)d, once.p, once.len) == 0);
            assert(once.len == twice.len && memcmp(once.p, twice.p, once.len) == 0);
            json_out_free(&twice);
        }
        json_out_free(&once);
    }
    read_values(data, size);
    return 0;
}
