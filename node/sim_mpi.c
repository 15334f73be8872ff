/*
 * kadmsg-sim-mpi - `kadmsg sim` spread over the processes of mpirun.
 *
 * A program of its own, so that the node never links MPI. Every process reads the scenario and runs the
 * same command; the first one speaks. MPI is called by one thread at a time only, the one of main().
 * A lost process ends all of them: mpirun says which.
 */
#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/err.h"
#include "node/cmd_sim.h"
#include "node/cmds.h"
#include "simulator/exchange.h"

struct bytes {
    uint8_t *v;
    size_t cap;
};

static struct {
    int *out_n, *out_at, *in_n, *in_at; /* per process */
    struct bytes out, in;
    struct exchange_net net;
} mpi;

static void give_up(const char *what)
{
    fprintf(stderr, "kadmsg-sim-mpi: process %u: %s\n", mpi.net.rank, what);
    (void)MPI_Abort(MPI_COMM_WORLD, 1);
    abort();
}

static void need(struct bytes *b, size_t n)
{
    if (n > INT_MAX)
        give_up("more than 2 GiB in one window: take more processes, or a smaller net.floor");
    if (n <= b->cap)
        return;
    b->cap = n + n / 2;
    b->v = realloc(b->v, b->cap);
    if (b->v == NULL)
        give_up(err_str(ERR_NOMEM));
}

/* Places of blocks that lie one behind the other; returns their length. */
static size_t place(const int *n, int *at)
{
    size_t sum = 0;

    for (unsigned r = 0; r < mpi.net.ranks; r++) {
        if (sum > INT_MAX)
            give_up("more than 2 GiB in one window");
        at[r] = (int)sum;
        sum += (size_t)n[r];
    }
    return sum;
}

static void swap(void *arg, const struct exchange_span *out, struct exchange_span *in)
{
    (void)arg;
    for (unsigned r = 0; r < mpi.net.ranks; r++) {
        if (out[r].n > INT_MAX)
            give_up("more than 2 GiB in one window");
        mpi.out_n[r] = (int)out[r].n;
    }
    need(&mpi.out, place(mpi.out_n, mpi.out_at));
    for (unsigned r = 0; r < mpi.net.ranks; r++) {
        if (out[r].n > 0)
            memcpy(mpi.out.v + mpi.out_at[r], out[r].v, out[r].n);
    }
    (void)MPI_Alltoall(mpi.out_n, 1, MPI_INT, mpi.in_n, 1, MPI_INT, MPI_COMM_WORLD);
    in->n = place(mpi.in_n, mpi.in_at);
    need(&mpi.in, in->n);
    (void)MPI_Alltoallv(mpi.out.v, mpi.out_n, mpi.out_at, MPI_BYTE, mpi.in.v, mpi.in_n, mpi.in_at,
                        MPI_BYTE, MPI_COMM_WORLD);
    in->v = mpi.in.v;
}

static void gather(void *arg, const void *mine, size_t n, void *all)
{
    (void)arg;
    (void)MPI_Allgather(mine, (int)n, MPI_BYTE, all, (int)n, MPI_BYTE, MPI_COMM_WORLD);
}

static void reduce(uint64_t *v, size_t n, MPI_Op op)
{
    for (size_t at = 0; at < n; at += INT_MAX / 2) {
        int part = (int)(n - at < INT_MAX / 2 ? n - at : INT_MAX / 2);
        (void)MPI_Allreduce(MPI_IN_PLACE, v + at, part, MPI_UINT64_T, op, MPI_COMM_WORLD);
    }
}

static void sum(void *arg, uint64_t *v, size_t n)
{
    (void)arg;
    reduce(v, n, MPI_SUM);
}

static void largest(void *arg, uint64_t *v, size_t n)
{
    (void)arg;
    reduce(v, n, MPI_MAX);
}

static int begin(int *argc, char ***argv)
{
    int level, rank, ranks;

    if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS ||
        MPI_Comm_rank(MPI_COMM_WORLD, &rank) != MPI_SUCCESS ||
        MPI_Comm_size(MPI_COMM_WORLD, &ranks) != MPI_SUCCESS || level < MPI_THREAD_FUNNELED) {
        fprintf(stderr, "kadmsg-sim-mpi: MPI does not start\n");
        return ERR_UNSUPPORTED;
    }
    mpi.net = (struct exchange_net){.rank = (unsigned)rank,
                                    .ranks = (unsigned)ranks,
                                    .swap = swap,
                                    .gather = gather,
                                    .sum = sum,
                                    .max = largest};
    int *numbers = calloc(4 * mpi.net.ranks, sizeof *numbers);
    if (numbers == NULL) {
        fprintf(stderr, "kadmsg-sim-mpi: %s\n", err_str(ERR_NOMEM));
        return ERR_NOMEM;
    }
    mpi.out_n = numbers;
    mpi.out_at = numbers + mpi.net.ranks;
    mpi.in_n = numbers + 2 * mpi.net.ranks;
    mpi.in_at = numbers + 3 * mpi.net.ranks;
    cmd_sim_others = &mpi.net;
    return 0;
}

/* The first process says what is wrong with a command line, the others find it wrong too. */
static int run_command(const struct cmd *root, int argc, char **argv)
{
    struct cmdline cl;
    FILE *nowhere = fopen("/dev/null", "w");

    if (mpi.net.rank == 0 || nowhere == NULL) {
        if (nowhere != NULL)
            (void)fclose(nowhere);
        return cmdline_main(root, argc, argv);
    }
    int rc =
        cmdline_parse(&cl, root, argc, argv, nowhere, nowhere) ? cl.cmd->run(&cl) : cl.exit_code;
    cmdline_free(&cl);
    (void)fclose(nowhere);
    return rc;
}

int main(int argc, char **argv)
{
    struct cmd root = cmd_sim;

    root.name = "kadmsg-sim-mpi";
    sim_addresses_settle(); /* MPI does not begin twice */
    if (crypto_init() != 0 || begin(&argc, &argv) != 0)
        return 1;
    int rc = run_command(&root, argc, argv);
    free(mpi.out_n);
    free(mpi.out.v);
    free(mpi.in.v);
    (void)MPI_Finalize();
    return rc;
}
