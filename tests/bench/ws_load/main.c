/*
 * Load on a WebSocket or Server-Sent Events server: see --help.
 */
#include "load.h"
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const char help[] =
    "Usage: ws_load broadcast|echo|idle --url URL [option ...]\n"
    "       ws_load self-test\n"
    "\n"
    "  broadcast   a publisher sends messages that the server passes on to all clients; each "
    "client must\n"
    "              receive every message once and in order\n"
    "  echo        each client sends a message and waits for it to come back, again and again\n"
    "  idle        opens clients and tells what memory each costs the server\n"
    "  self-test   counts the errors of a built-in server that makes errors on purpose\n"
    "\n"
    "  --url URL             ws://HOST:PORT/PATH or sse://HOST:PORT/PATH, where clients connect\n"
    "  --publish URL         ws://... where the publisher connects (default: --url's host, path "
    "/pub)\n"
    "  --publish-command C   publish by a shell command instead, one message a line on its input\n"
    "  --publish-format T    text around a published message, with one %s\n"
    "  --clients N           default 100\n"
    "  --window N            messages in flight; the next is sent when the oldest has reached all\n"
    "                        clients (default 1)\n"
    "  --rate R              instead: R messages a second, whether or not the server keeps up; "
    "latency\n"
    "                        counts from when a message was due\n"
    "  --size N              bytes of a message (default 100, at least 33)\n"
    "  --warm-up S           seconds before measuring (default 0.5)\n"
    "  --seconds S           seconds measured (default 3)\n"
    "  --pids P,P            the server's processes: their CPU time and memory, descendants "
    "included\n"
    "  --probe PATH          idle: ask for this by HTTP before each reading of memory\n"
    "  --send-on-open T      each client's first message\n"
    "  --send-after T        it waits for a message with this text\n"
    "  --ready-when T        a client is ready when a message with this text came\n"
    "  --origin O, --subprotocol P   request headers\n"
    "  --json                one JSON object instead of one line\n"
    "  --quiet               no progress on standard error\n"
    "\n"
    "Exit status: 0 every delivery was right, 1 not, or the run failed, 2 usage.\n";

static int usage(const char *problem)
{
    fprintf(stderr, "ws_load: %s (see --help)\n", problem);
    return 2;
}

enum {
    OPT_URL = 256,
    OPT_PUBLISH,
    OPT_COMMAND,
    OPT_FORMAT,
    OPT_CLIENTS,
    OPT_WINDOW,
    OPT_RATE,
    OPT_SIZE,
    OPT_WARM_UP,
    OPT_SECONDS,
    OPT_PIDS,
    OPT_PROBE,
    OPT_ON_OPEN,
    OPT_AFTER,
    OPT_READY,
    OPT_ORIGIN,
    OPT_SUBPROTOCOL,
    OPT_JSON,
    OPT_QUIET,
    OPT_HELP
};

static const struct option names[] = {{"url", 1, 0, OPT_URL},
                                      {"publish", 1, 0, OPT_PUBLISH},
                                      {"publish-command", 1, 0, OPT_COMMAND},
                                      {"publish-format", 1, 0, OPT_FORMAT},
                                      {"clients", 1, 0, OPT_CLIENTS},
                                      {"window", 1, 0, OPT_WINDOW},
                                      {"rate", 1, 0, OPT_RATE},
                                      {"size", 1, 0, OPT_SIZE},
                                      {"warm-up", 1, 0, OPT_WARM_UP},
                                      {"seconds", 1, 0, OPT_SECONDS},
                                      {"pids", 1, 0, OPT_PIDS},
                                      {"probe", 1, 0, OPT_PROBE},
                                      {"send-on-open", 1, 0, OPT_ON_OPEN},
                                      {"send-after", 1, 0, OPT_AFTER},
                                      {"ready-when", 1, 0, OPT_READY},
                                      {"origin", 1, 0, OPT_ORIGIN},
                                      {"subprotocol", 1, 0, OPT_SUBPROTOCOL},
                                      {"json", 0, 0, OPT_JSON},
                                      {"quiet", 0, 0, OPT_QUIET},
                                      {"help", 0, 0, OPT_HELP},
                                      {0, 0, 0, 0}};

static bool set_option(struct options *o, int name, const char *value)
{
    switch (name) {
    case OPT_URL:
        return endpoint_parse(&o->url, value);
    case OPT_PUBLISH:
        return endpoint_parse(&o->publish_url, value) && !o->publish_url.sse;
    case OPT_COMMAND:
        o->publish_command = value;
        return true;
    case OPT_FORMAT:
        o->publish_format = value;
        return strstr(value, "%s") != NULL;
    case OPT_CLIENTS:
        o->clients = (unsigned)strtoul(value, NULL, 10);
        return o->clients > 0 && o->clients <= 10000000;
    case OPT_WINDOW:
        o->window = (unsigned)strtoul(value, NULL, 10);
        return o->window > 0 && o->window <= WINDOW_MAX;
    case OPT_RATE:
        o->rate = strtod(value, NULL);
        o->window = 0;
        return o->rate > 0 && o->rate <= 1e7;
    case OPT_SIZE:
        o->size = strtoul(value, NULL, 10);
        return o->size >= MESSAGE_SIZE_MIN && o->size <= 8 << 20;
    case OPT_WARM_UP:
        o->warm_up = strtod(value, NULL);
        return o->warm_up >= 0;
    case OPT_SECONDS:
        o->seconds = strtod(value, NULL);
        return o->seconds > 0;
    case OPT_PIDS:
        return process_tree_parse(&o->server, value);
    case OPT_PROBE:
        o->probe = value;
        return true;
    case OPT_ON_OPEN:
        o->send_on_open = value;
        return true;
    case OPT_AFTER:
        o->send_after = value;
        return true;
    case OPT_READY:
        o->ready_when = value;
        return true;
    case OPT_ORIGIN:
        o->origin = value;
        return true;
    case OPT_SUBPROTOCOL:
        o->subprotocol = value;
        return true;
    case OPT_JSON:
        return o->json = true;
    case OPT_QUIET:
        return o->quiet = true;
    default:
        return false;
    }
}

static bool set_mode(struct options *o, const char *name)
{
    static const char *const modes[] = {
        [MODE_BROADCAST] = "broadcast", [MODE_ECHO] = "echo", [MODE_IDLE] = "idle"};
    for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(name, modes[i]) == 0) {
            o->mode = (enum mode)i;
            return true;
        }
    }
    return false;
}

static int run(const struct options *o)
{
    struct load *load = malloc(sizeof(*load));
    struct result result = {0};
    if (load == NULL)
        abort();
    load_init(load, o);
    load_run(load, &result);
    report(load, &result);
    int status = is_clean(load) ? 0 : 1;
    load_release(load);
    free(load);
    return status;
}

int main(int argc, char **argv)
{
    struct options o = {.clients = 100, .window = 1, .size = 100, .warm_up = 0.5, .seconds = 3};
    struct rlimit files;
    int name;
    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (name == OPT_HELP) {
            fputs(help, stdout);
            return 0;
        }
        if (!set_option(&o, name, optarg)) {
            fputs("ws_load: wrong option or value (see --help)\n", stderr);
            return 2;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (argc - optind != 1)
        return usage("one of broadcast, echo, idle and self-test is needed");
    if (strcmp(argv[optind], "self-test") == 0)
        return self_test();
    if (!set_mode(&o, argv[optind]))
        return usage("unknown command");
    if (o.url.address.sin_port == 0)
        return usage("--url is needed");
    if (o.mode == MODE_ECHO && o.size > 60000)
        return usage("echo: --size is at most 60000");
    if (o.publish_url.address.sin_port == 0) {
        o.publish_url = o.url;
        o.publish_url.sse = false;
        strcpy(o.publish_url.path, "/pub");
    }
    return run(&o);
}
