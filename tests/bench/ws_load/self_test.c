/*
 * The load program's proof of itself: run against a server that deliberately drops, repeats, swaps
 * and invents deliveries, it must count exactly what that server did, and find nothing with a
 * server that does no wrong.
 */
#include "fault_server.h"
#include "load.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

static struct fault_counts *counts;
static int failures;

static void expect(const char *name, const char *what, uint64_t have, uint64_t want, bool some)
{
    bool right = have == want && (!some || want > 0);
    if (!right)
        failures++;
    printf("%s - %s: %s %llu, the server's count %llu\n", right ? "ok" : "not ok", name, what,
           (unsigned long long)have, (unsigned long long)want);
}

static void run_case(const char *name, struct fault_plan plan, struct options options, bool sse)
{
    char url[64];
    uint16_t port;
    struct load *load = malloc(sizeof(*load));
    struct result result = {0};
    memset(counts, 0, sizeof(*counts));
    pid_t server = fault_server_start(&plan, counts, &port);
    if (server < 0 || load == NULL)
        abort();
    snprintf(url, sizeof(url), "%s://127.0.0.1:%u/sub", sse ? "sse" : "ws", port);
    endpoint_parse(&options.url, url);
    snprintf(url, sizeof(url), "ws://127.0.0.1:%u/pub", port);
    endpoint_parse(&options.publish_url, url);
    options.server = (struct process_tree){.root = {server}, .count = 1};
    load_init(load, &options);
    bool ran = load_run(load, &result);
    expect(name, "ran", ran && result.deliveries > 0 && result.server_cpu_us > 0, 1, false);
    expect(name, "lost", plan.close_at > 0 ? 0 : load->faults.lost, counts->dropped, plan.drop > 0);
    expect(name, "duplicated", load->faults.duplicated, counts->duplicated, plan.duplicate > 0);
    expect(name, "out of order", load->faults.reordered, counts->swapped, plan.swap > 0);
    expect(name, "foreign", load->faults.foreign, counts->invented, plan.invent > 0);
    expect(name, "closed", load->closed, counts->closed, plan.close_at > 0);
    bool faulty = plan.drop || plan.duplicate || plan.swap || plan.invent || plan.close_at;
    expect(name, "clean", is_clean(load), !faulty, false);
    if (plan.pause_at > 0) { /* a third of a second's messages waited 150 ms on average */
        double p90 = histogram_percentile(&load->latency, 0.9), most = FAULT_PAUSE_MS * 1000.0;
        expect(name, "messages that were due during a pause have waited", p90 > most / 4, 1, false);
        expect(name, "the longest wait is the pause", (double)load->latency.max / 1e3 > most * 0.9,
               1, false);
    }
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    load_release(load);
    free(load);
}

static void histogram_is_right(void)
{
    static struct histogram h;
    for (uint64_t us = 1; us <= 100000; us++)
        histogram_add(&h, us * 1000);
    const double p[] = {0.001, 0.5, 0.9, 0.99, 0.999, 1};
    for (unsigned i = 0; i < sizeof(p) / sizeof(p[0]); i++) {
        double want = p[i] * 100000, have = histogram_percentile(&h, p[i]);
        expect("histogram", "percentile within 1.6 %", have >= want && have <= want * 1.016, 1,
               false);
    }
    histogram_clear(&h);
    histogram_add(&h, UINT64_MAX);
    expect("histogram", "the largest value", histogram_percentile(&h, 0.5) > 1e15, 1, false);
}

int self_test(void)
{
    struct options window = {.mode = MODE_BROADCAST,
                             .clients = 20,
                             .window = 8,
                             .size = 100,
                             .warm_up = 0.05,
                             .seconds = 0.4,
                             .quiet = true};
    struct options rate = window, large = window;
    rate.window = 0;
    rate.rate = 1000;
    rate.seconds = 1;
    large.size = 5000;
    counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED)
        return 1;
    histogram_is_right();
    for (int sse = 0; sse < 2; sse++) {
        run_case(sse ? "sse, no fault" : "no fault", (struct fault_plan){0}, window, sse);
        run_case(sse ? "sse, drops" : "drops", (struct fault_plan){.drop = 997}, window, sse);
        run_case(sse ? "sse, repeats" : "repeats", (struct fault_plan){.duplicate = 991}, window,
                 sse);
        run_case(sse ? "sse, swaps" : "swaps", (struct fault_plan){.swap = 983}, window, sse);
    }
    run_case("large messages", (struct fault_plan){.drop = 499}, large, false);
    run_case("invents", (struct fault_plan){.invent = 977}, window, false);
    run_case("all at once", (struct fault_plan){997, 991, 983, 977, 0, 0}, window, false);
    run_case("a client is closed", (struct fault_plan){.close_at = 300}, rate, false);
    run_case("a pause at a fixed rate", (struct fault_plan){.pause_at = 400}, rate, false);
    printf("%s\n", failures == 0 ? "self-test passed" : "self-test FAILED");
    return failures == 0 ? 0 : 1;
}
