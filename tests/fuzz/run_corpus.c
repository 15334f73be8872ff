/* Runs a fuzz target over files instead of libFuzzer's inputs: `prog DIR|FILE…`.
 *
 * Every file is handed over once, in a heap block of exactly its size (so that the address
 * sanitizer sees a read past the end), and then the empty input. A corpus without a file is an
 * error: such a check could not fail. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

static void die(const char *what, const char *path)
{
    fprintf(stderr, "run_corpus: %s: %s\n", what, path);
    exit(1);
}

static void run_file(const char *path, off_t size)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        die("cannot open", path);
    size_t want = (size_t)size;
    uint8_t *data = malloc(want > 0 ? want : 1);
    if (data == NULL || fread(data, 1, want, f) != want)
        die("cannot read", path);
    fclose(f);

    /* A crash has to name its input: this line is the last one of the log then. */
    fprintf(stderr, "input %s\n", path);
    LLVMFuzzerTestOneInput(data, want);
    free(data);
}

static size_t run_path(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        die("no such file or directory", path);
    if (!S_ISDIR(st.st_mode)) {
        run_file(path, st.st_size);
        return 1;
    }

    struct dirent **names = NULL;
    int count = scandir(path, &names, NULL, alphasort);
    if (count < 0)
        die("cannot list", path);
    size_t done = 0;
    for (int i = 0; i < count; i++) {
        if (names[i]->d_name[0] != '.') {
            char sub[4096];
            int n = snprintf(sub, sizeof sub, "%s/%s", path, names[i]->d_name);
            if (n < 0 || (size_t)n >= sizeof sub)
                die("path too long", path);
            done += run_path(sub);
        }
        free(names[i]);
    }
    free(names);
    return done;
}

int main(int argc, char **argv)
{
    if (LLVMFuzzerInitialize != NULL)
        LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) {
        if (run_path(argv[i]) == 0)
            die("empty corpus", argv[i]);
    }
    uint8_t *nothing = malloc(1);
    LLVMFuzzerTestOneInput(nothing, 0);
    free(nothing);
    return 0;
}
