/* Any text as an environment file: names and values are what their rules say, and come from inside the text. */
#include <assert.h>
#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "apps/envfile.h"
#include "base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    const char *text;
    size_t size, values;
};

static void on_value(void *arg, const char *name, const char *value)
{
    struct seen *s = arg;
    assert(name >= s->text && name < s->text + s->size);
    assert(value >= s->text && value <= s->text + s->size);
    assert(name[0] == '_' || isalpha((unsigned char)name[0]));
    assert(strchr(name, '=') == NULL && strchr(value, '\n') == NULL);
    s->values++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen seen = {0};
    size_t line = 0, lines = 1;
    char *text = malloc(size + 1), *again = malloc(size + 1);
    if (text != NULL && again != NULL && memchr(data, '\0', size) == NULL) {
        memcpy(text, data, size);
        text[size] = '\0';
        for (size_t i = 0; i < size; i++)
            lines += data[i] == '\n';
        seen.text = text;
        seen.size = size;
        int rc = envfile_parse(text, on_value, &seen, &line);
        assert(rc == 0 || rc == ERR_FORMAT);
        assert(line >= 1 && line <= lines);
        /* The same text gives the same values: nothing is left from the first time. */
        if (rc == 0) {
            size_t before = seen.values;
            memcpy(again, data, size);
            again[size] = '\0';
            seen = (struct seen){.text = again, .size = size};
            assert(envfile_parse(again, on_value, &seen, &line) == 0 && seen.values == before);
        }
    }
    free(text);
    free(again);
    return 0;
}
