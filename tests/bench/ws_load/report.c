#include "load.h"
#include <stdio.h>
#include <unistd.h>

bool is_clean(const struct load *load)
{
    const struct faults *f = &load->faults;
    return load->problem[0] == '\0' && load->closed == 0 && f->lost == 0 && f->duplicated == 0 &&
           f->reordered == 0 && f->foreign == 0;
}

void progress(const struct load *load, const char *what, uint64_t done, uint64_t of)
{
    static uint64_t last;
    uint64_t now = now_ns();
    if (load->options->quiet || now - last < 200000000 || !isatty(2))
        return;
    last = now;
    fprintf(stderr, "\r\033[K%s: %.0f %%, %llu deliveries", what,
            of == 0 ? 100.0 : 100.0 * (double)done / (double)of,
            (unsigned long long)load->deliveries);
}

static const char *mode_name(const struct options *o)
{
    return o->mode == MODE_ECHO ? "echo" : o->mode == MODE_IDLE ? "idle" : "broadcast";
}

static void report_json(const struct load *load, const struct result *r)
{
    const struct options *o = load->options;
    const struct faults *f = &load->faults;
    const struct histogram *h = &load->latency;
    printf("{\"mode\":\"%s\",\"transport\":\"%s\",\"clients\":%u,\"window\":%u,\"rate\":%.1f,"
           "\"size\":%zu,\"seconds\":%.3f,\"open_seconds\":%.3f,\"messages\":%llu,\"deliveries\":%"
           "llu,",
           mode_name(o), o->url.sse ? "sse" : "websocket", o->clients, o->window, o->rate, o->size,
           r->seconds, r->open_seconds, (unsigned long long)r->messages,
           (unsigned long long)r->deliveries);
    printf("\"deliveries_per_second\":%.0f,\"server_cpu_us_per_delivery\":%.4f,"
           "\"server_cpus\":%.3f,\"client_cpu_us_per_delivery\":%.4f,\"server_peak_rss_kib\":%llu,",
           r->seconds > 0 ? (double)r->deliveries / r->seconds : 0, r->server_cpu_us,
           r->server_cpu_share, r->own_cpu_us, (unsigned long long)r->server_peak_kib);
    printf("\"latency_us\":{\"samples\":%llu,\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,"
           "\"p999\":%.1f,\"max\":%.1f},",
           (unsigned long long)h->count, h->count > 0 ? (double)h->sum / (double)h->count / 1e3 : 0,
           histogram_percentile(h, 0.5), histogram_percentile(h, 0.9),
           histogram_percentile(h, 0.99), histogram_percentile(h, 0.999), (double)h->max / 1e3);
    if (o->mode == MODE_IDLE)
        printf("\"memory_per_client\":%.0f,\"pss_before_kib\":%llu,\"pss_after_kib\":%llu,"
               "\"probe_before\":\"%s\",\"probe_after\":\"%s\",",
               r->memory_per_client, (unsigned long long)r->memory_before_kib,
               (unsigned long long)r->memory_after_kib, r->probe_before, r->probe_after);
    printf("\"lost\":%llu,\"duplicated\":%llu,\"reordered\":%llu,\"foreign\":%llu,\"closed\":%u,"
           "\"problem\":\"%s\",\"clean\":%s}\n",
           (unsigned long long)f->lost, (unsigned long long)f->duplicated,
           (unsigned long long)f->reordered, (unsigned long long)f->foreign, load->closed,
           load->problem, is_clean(load) ? "true" : "false");
}

static void report_line(const struct load *load, const struct result *r)
{
    const struct options *o = load->options;
    const struct faults *f = &load->faults;
    const struct histogram *h = &load->latency;
    printf("%s %s, %u clients", o->url.sse ? "sse" : "websocket", mode_name(o), o->clients);
    if (o->mode == MODE_IDLE)
        printf(": %.0f bytes a client (%llu -> %llu KiB)\n", r->memory_per_client,
               (unsigned long long)r->memory_before_kib, (unsigned long long)r->memory_after_kib);
    else
        printf(
            ": %.0f deliveries/s, server CPU %.3f us a delivery (%.2f CPUs), client CPU %.3f us; "
            "latency us p50 %.0f p90 %.0f p99 %.0f p99.9 %.0f max %.0f\n",
            (double)r->deliveries / (r->seconds > 0 ? r->seconds : 1), r->server_cpu_us,
            r->server_cpu_share, r->own_cpu_us, histogram_percentile(h, 0.5),
            histogram_percentile(h, 0.9), histogram_percentile(h, 0.99),
            histogram_percentile(h, 0.999), (double)h->max / 1e3);
    if (!is_clean(load))
        printf("NOT CLEAN: %llu lost, %llu duplicated, %llu out of order, %llu foreign, %u closed. "
               "%s\n",
               (unsigned long long)f->lost, (unsigned long long)f->duplicated,
               (unsigned long long)f->reordered, (unsigned long long)f->foreign, load->closed,
               load->problem);
}

void report(const struct load *load, const struct result *result)
{
    if (!load->options->quiet && isatty(2))
        fputs("\r\033[K", stderr);
    if (load->options->json)
        report_json(load, result);
    else
        report_line(load, result);
}
