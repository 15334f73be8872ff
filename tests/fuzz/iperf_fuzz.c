/* The head of a measured stream, and bytes behind it as blocks: whatever comes, a sink counts no more than it got. */
#include <assert.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "apps/iperf_flow.h"
#include "base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct iperf_head h;
    uint8_t back[IPERF_HEAD];
    struct iperf_sink sink;
    int fds[2];
    if (size < IPERF_HEAD || iperf_head_get(&h, data) != 0)
        return 0;
    iperf_head_put(back, &h);
    assert(memcmp(back, data, sizeof back) == 0);
    data += IPERF_HEAD;
    size -= IPERF_HEAD;
    if (size > 65536 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) != 0)
        return 0;
    size_t put = 0;
    for (ssize_t n = 1; put < size && n > 0; put += n > 0 ? (size_t)n : 0)
        n = write(fds[0], data + put, size - put);
    close(fds[0]);
    iperf_sink_init(&sink, h.seed);
    int rc = 0;
    while (rc == 0 && !sink.done)
        rc = iperf_sink_step(&sink, fds[1], 1);
    assert(rc == 0 || rc == ERR_EOF || rc == ERR_FORMAT);
    assert(sink.result.bytes <= put && sink.result.wrong <= sink.result.bytes);
    close(fds[1]);
    return 0;
}
