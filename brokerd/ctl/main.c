#include "ctl.h"
#include "embedded_path.h"
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct command {
    const char *name;
    int (*run)(const struct ctl_options *options);
    const char *operands;
    const char *purpose;
} commands[] = {
    {"publish", cmd_publish, "CHANNEL [MESSAGE]",
     "send MESSAGE, or standard input, to every subscriber"},
    {"subscribe", cmd_subscribe, "PATTERN...", "print messages as they come"},
    {"ping", cmd_ping, "", "does a broker answer?"},
    {"stats", cmd_stats, "", "the broker's counters"},
    {"sessions", cmd_sessions, "", "the processes that are attached"},
    {"channels", cmd_channels, "[PATTERN]", "channels and patterns with subscribers"},
    {"engines", cmd_engines, "", "the engines that are attached"},
    {"engine", cmd_engine, "detach|reset NAME",
     "end the engines of that name, or tell them all interest again"},
    {"bench", cmd_bench, "", "put load on the broker; see the options"},
};

static int say(int status, const char *format, va_list arguments)
{
    fflush(stdout);
    fputs("brokerctl: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs(status == CTL_USAGE ? " (brokerctl --help shows how)\n" : "\n", stderr);
    return status;
}

int ctl_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(CTL_FAILED, format, arguments);
    va_end(arguments);
    return CTL_FAILED;
}

int ctl_usage(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(CTL_USAGE, format, arguments);
    va_end(arguments);
    return CTL_USAGE;
}

static void help(void)
{
    puts("usage: brokerctl COMMAND [OPTIONS]\n\ncommands:");
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        printf("  %-9s %-18s %s\n", commands[i].name, commands[i].operands, commands[i].purpose);
    puts("\noptions, before or after the command:\n"
         "  --url URL           ipc:///path, tcp://host:port or tls+tcp://host:port; else\n"
         "                      BROKERD_URL, else the broker of the application in this folder\n"
         "  --secret-file FILE  the broker's secret; else BROKERD_SECRET_FILE\n"
         "  --ca-file FILE      tls+tcp: who may have signed the broker's certificate; else\n"
         "                      BROKERD_CA_FILE, else the system's authorities\n"
         "  --crl-file FILE     tls+tcp: their revocation lists; else BROKERD_CRL_FILE\n"
         "  --cert-file FILE    tls+tcp: our own certificate; else BROKERD_CERT_FILE\n"
         "  --key-file FILE     its key; else BROKERD_KEY_FILE, else in the same file\n"
         "  --timeout SECONDS   how long to wait for an answer (5)\n"
         "  --json              subscribe, stats, sessions, channels, engines, ping, bench: JSON\n"
         "  --lines             publish: each line of standard input is a message\n"
         "  --binary            publish: the message is binary\n"
         "  -v, --verbose       publish: print how many sessions it reached;\n"
         "                      subscribe: say when the subscription stands;\n"
         "                      engine: print how many there were of that name\n"
         "  --publishers N, --subscribers N   bench: processes of each kind (1 and 1)\n"
         "  --size BYTES        bench: of a message (64)\n"
         "  --rate N            bench: messages a second of all publishers (as many as go)\n"
         "  --seconds N         bench: how long (5)\n"
         "  --version, --help\n\n"
         "exit status: 0 done (also when nobody listens), 1 refused, unreachable or unknown, 2 "
         "usage");
}

static bool parse_timeout(const char *text, unsigned *ms)
{
    char *end;
    errno = 0;
    double seconds = strtod(text, &end);
    if (errno || end == text || *end || !(seconds > 0 && seconds <= 86400))
        return false;
    *ms = (unsigned)(seconds * 1000 + 0.5);
    return true;
}

static bool parse_number(const char *text, double least, double most, double *number)
{
    char *end;
    errno = 0;
    *number = strtod(text, &end);
    return !errno && end != text && !*end && *number >= least && *number <= most;
}

enum { PUBLISHERS = 512, SUBSCRIBERS, SIZE, RATE, SECONDS };

/* The options of bench. */
static bool parse_bench(struct ctl_options *options, int option, const char *text)
{
    double number;
    switch (option) {
    case PUBLISHERS:
        if (!parse_number(text, 1, CTL_BENCH_WORKERS_MAX, &number))
            return false;
        options->publishers = (unsigned)number;
        return true;
    case SUBSCRIBERS:
        if (!parse_number(text, 0, CTL_BENCH_WORKERS_MAX, &number))
            return false;
        options->subscribers = (unsigned)number;
        return true;
    case SIZE:
        if (!parse_number(text, 1, 8 << 20, &number))
            return false;
        options->size = (size_t)number;
        return true;
    case RATE:
        return parse_number(text, 0.001, 1e7, &options->rate);
    default:
        return parse_number(text, 0.1, 86400, &options->seconds);
    }
}

/* Exit status, or -1 to go on. */
static int parse(struct ctl_options *options, int argc, char **argv)
{
    enum {
        URL = 256,
        SECRET_FILE,
        CA_FILE,
        CRL_FILE,
        CERT_FILE,
        KEY_FILE,
        TIMEOUT,
        JSON,
        LINES,
        BINARY,
        VERSION,
        HELP
    };
    static const struct option known[] = {
        {"url", required_argument, NULL, URL},
        {"secret-file", required_argument, NULL, SECRET_FILE},
        {"ca-file", required_argument, NULL, CA_FILE},
        {"crl-file", required_argument, NULL, CRL_FILE},
        {"cert-file", required_argument, NULL, CERT_FILE},
        {"key-file", required_argument, NULL, KEY_FILE},
        {"timeout", required_argument, NULL, TIMEOUT},
        {"json", no_argument, NULL, JSON},
        {"lines", no_argument, NULL, LINES},
        {"binary", no_argument, NULL, BINARY},
        {"verbose", no_argument, NULL, 'v'},
        {"publishers", required_argument, NULL, PUBLISHERS},
        {"subscribers", required_argument, NULL, SUBSCRIBERS},
        {"size", required_argument, NULL, SIZE},
        {"rate", required_argument, NULL, RATE},
        {"seconds", required_argument, NULL, SECONDS},
        {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, HELP},
        {NULL, 0, NULL, 0},
    };
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":vh", known, NULL)) != -1;) {
        switch (option) {
        case URL:
            options->url = optarg;
            break;
        case SECRET_FILE:
            options->secret_file = optarg;
            break;
        case CA_FILE:
            options->ca_file = optarg;
            break;
        case CRL_FILE:
            options->crl_file = optarg;
            break;
        case CERT_FILE:
            options->cert_file = optarg;
            break;
        case KEY_FILE:
            options->key_file = optarg;
            break;
        case TIMEOUT:
            if (!parse_timeout(optarg, &options->timeout_ms))
                return ctl_usage("--timeout %s: seconds above 0 are wanted, such as 2.5", optarg);
            break;
        case JSON:
            options->json = true;
            break;
        case LINES:
            options->lines = true;
            break;
        case BINARY:
            options->binary = true;
            break;
        case 'v':
            options->verbose = true;
            break;
        case PUBLISHERS:
        case SUBSCRIBERS:
        case SIZE:
        case RATE:
        case SECONDS:
            if (!parse_bench(options, option, optarg))
                return ctl_usage("%s is no number that this option of bench takes", optarg);
            break;
        case VERSION:
            puts("brokerctl " BROKERD_VERSION);
            return CTL_DONE;
        case 'h':
        case HELP:
            help();
            return CTL_DONE;
        case ':':
            return ctl_usage("%s needs a value", argv[optind - 1]);
        default:
            return ctl_usage("unknown option %s", argv[optind - 1]);
        }
    }
    options->count = argc - optind;
    options->arguments = argv + optind;
    return -1;
}

static int run(struct ctl_options *options)
{
    if (!options->count)
        return ctl_usage("which command?");
    const char *name = options->arguments[0];
    options->count--;
    options->arguments++;
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].run(options);
    return ctl_usage("unknown command %s", name);
}

/* An environment variable that is set and not empty. */
static const char *setting(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

int main(int argc, char **argv)
{
    struct ctl_options options = {.url = setting("BROKERD_URL"),
                                  .secret_file = setting("BROKERD_SECRET_FILE"),
                                  .ca_file = setting("BROKERD_CA_FILE"),
                                  .crl_file = setting("BROKERD_CRL_FILE"),
                                  .cert_file = setting("BROKERD_CERT_FILE"),
                                  .key_file = setting("BROKERD_KEY_FILE"),
                                  .timeout_ms = 5000,
                                  .publishers = 1,
                                  .subscribers = 1,
                                  .size = 64,
                                  .seconds = 5};
    int status = parse(&options, argc, argv);
    if (status >= 0)
        return status;
    char *own = NULL;
    const char *reason;
    if (!options.url) {
        own = embedded_url(&reason);
        if (!own)
            return ctl_fail("no broker to ask: %s, or give --url", reason);
        options.url = own;
        options.secret_file = NULL; /* that broker has none: its folder is this user's alone */
    }
    status = run(&options);
    free(own);
    return status;
}
