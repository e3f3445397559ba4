#include "options.h"

#include "journal.h"
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGE_MAX = 1 << 30 };

enum { /* long options without a letter */
       OPTION_JOURNAL = 256,
       OPTION_JOURNAL_SIZE,
       OPTION_NO_JOURNAL,
       OPTION_MAX_MESSAGE,
       OPTION_SECRET_FILE,
       OPTION_TLS_CERT,
       OPTION_TLS_KEY,
       OPTION_TLS_CLIENT_CA,
       OPTION_TLS_CLIENT_CRL,
       OPTION_INSECURE,
       OPTION_PEER_CONNECTIONS, /* these four as in enum peer_limit */
       OPTION_PEER_SESSIONS,
       OPTION_PEER_SUBSCRIPTIONS,
       OPTION_PEER_BYTES,
       OPTION_LOG_LEVEL,
       OPTION_ADMIN,
       OPTION_READY_FD,
       OPTION_EXIT_WHEN_IDLE,
       OPTION_BACKGROUND
};

static const struct option options[] = {
    {"listen", required_argument, NULL, 'l'},
    {"journal", required_argument, NULL, OPTION_JOURNAL},
    {"journal-size", required_argument, NULL, OPTION_JOURNAL_SIZE},
    {"no-journal", no_argument, NULL, OPTION_NO_JOURNAL},
    {"max-message", required_argument, NULL, OPTION_MAX_MESSAGE},
    {"secret-file", required_argument, NULL, OPTION_SECRET_FILE},
    {"tls-cert", required_argument, NULL, OPTION_TLS_CERT},
    {"tls-key", required_argument, NULL, OPTION_TLS_KEY},
    {"tls-client-ca", required_argument, NULL, OPTION_TLS_CLIENT_CA},
    {"tls-client-crl", required_argument, NULL, OPTION_TLS_CLIENT_CRL},
    {"insecure", no_argument, NULL, OPTION_INSECURE},
    {"peer-connections", required_argument, NULL, OPTION_PEER_CONNECTIONS},
    {"peer-sessions", required_argument, NULL, OPTION_PEER_SESSIONS},
    {"peer-subscriptions", required_argument, NULL, OPTION_PEER_SUBSCRIPTIONS},
    {"peer-bytes", required_argument, NULL, OPTION_PEER_BYTES},
    {"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
    {"admin", required_argument, NULL, OPTION_ADMIN},
    {"ready-fd", required_argument, NULL, OPTION_READY_FD},
    {"exit-when-idle", required_argument, NULL, OPTION_EXIT_WHEN_IDLE},
    {"background", no_argument, NULL, OPTION_BACKGROUND},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static const char help[] =
    "Usage: brokerd --listen URL [option ...]\n"
    "\n"
    "The message broker of the brokerd gem. Its sockets speak NNG (SP) REP.\n"
    "\n"
    "  -l, --listen URL       ipc:///path, tcp://host:port or tls+tcp://host:port; may be given "
    "up\n"
    "                         to 16 times\n"
    "      --journal PATH     the file that keeps the messages (default: PATH.journal beside the\n"
    "                         first ipc socket; with tcp alone there is none)\n"
    "      --journal-size N   bytes of it, or with K, M, G (default 64M)\n"
    "      --no-journal       keep the messages in memory only: a restart forgets them\n"
    "      --max-message N    the largest payload that is taken (default 8M)\n"
    "      --admin HOST:PORT  serve /healthz and /metrics by HTTP there\n"
    "      --secret-file PATH clients must prove that they know what this file holds\n"
    "      --tls-cert PATH    the certificate (PEM) of tls+tcp, with those between it and its CA\n"
    "      --tls-key PATH     its private key (default: in the same file)\n"
    "      --tls-client-ca PATH  only clients with a certificate of this CA may connect by "
    "tls+tcp\n"
    "      --tls-client-crl PATH  and of these none that this list (PEM) of the CA names\n"
    "      --insecure         allow to listen beyond the loopback addresses without a secret or "
    "TLS\n"
    "      --peer-connections N    what one address, or one user on ipc, may have: connections\n"
    "                         (default 4096),\n"
    "      --peer-sessions N       sessions (4096),\n"
    "      --peer-subscriptions N  subscriptions (16M), and\n"
    "      --peer-bytes N          bytes of names, of requests half read, of replies not read "
    "(1G)\n"
    "      --log-level LEVEL  error, warn, info (default) or debug\n"
    "      --ready-fd N       write one byte to descriptor N once all sockets listen\n"
    "      --background       return once all sockets listen; the broker goes on by itself\n"
    "      --exit-when-idle S end when there has been no session for S seconds\n"
    "  -V, --version          print the version and exit\n"
    "  -h, --help             print this and exit\n"
    "\n"
    "SIGTERM and SIGINT end it in order: what is queued is sent, for at most 5 seconds. SIGHUP "
    "reads\n"
    "the certificate, the key, the CA, its list and the secret again; without any of them it ends "
    "the "
    "broker.\n";

static bool wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));

static bool wrong(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("brokerd: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs(" (brokerd --help tells all options)\n", stderr);
    va_end(arguments);
    return false;
}

/* A number of bytes with an optional K, M or G (also KiB, MiB, GiB). */
static bool parse_size(const char *text, uint64_t *bytes)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || errno != 0)
        return false;
    unsigned shift = 0;
    if (*end != 0) {
        const char *units = "KMG", *unit = strchr(units, *end);
        if (unit == NULL || (end[1] != 0 && strcmp(end + 1, "iB") != 0))
            return false;
        shift = 10 * (unsigned)(unit - units + 1);
    }
    *bytes = number << shift;
    return *bytes >> shift == number;
}

static bool parse_number(const char *text, long least, long most, long *number)
{
    char *end;
    errno = 0;
    *number = strtol(text, &end, 10);
    return *text != 0 && *end == 0 && errno == 0 && *number >= least && *number <= most;
}

static bool take_listen(struct options *o, const char *text)
{
    if (o->listen_count == OPTIONS_LISTEN_MAX)
        return wrong("--listen may be given at most %d times", OPTIONS_LISTEN_MAX);
    const char *fault = listen_url_parse(&o->listen[o->listen_count], text);
    if (fault != NULL)
        return wrong("--listen %s: %s", text, fault);
    o->listen_count++;
    return true;
}

static bool take_journal_size(struct options *o, const char *text)
{
    uint64_t size;
    if (!parse_size(text, &size) || size < JOURNAL_SIZE_MIN || size > (uint64_t)1 << 36)
        return wrong("--journal-size %s: it must be a number of bytes from 64K to 64G, "
                     "for example 64M",
                     text);
    o->journal_size = (size + 4095) & ~(uint64_t)4095;
    o->journal_size_given = true;
    return true;
}

static bool take_max_message(struct options *o, const char *text)
{
    uint64_t size;
    if (!parse_size(text, &size) || size == 0 || size > MESSAGE_MAX)
        return wrong("--max-message %s: it must be a number of bytes from 1 to 1G, "
                     "for example 8M",
                     text);
    o->max_message = (uint32_t)size;
    return true;
}

static bool take_peer_limit(struct options *o, enum peer_limit limit, const char *text)
{
    uint64_t most;
    if (!parse_size(text, &most) || most == 0 || most > (uint64_t)1 << 40)
        return wrong("a limit of a peer (--peer-...) is %s: it must be a number from 1 to 1024G, "
                     "for example 4096 or 1G",
                     text);
    o->peer_max[limit] = most;
    return true;
}

static bool take(struct options *o, int option, const char *text)
{
    long number;
    const char *fault;
    int level;
    switch (option) {
    case 'l':
        return take_listen(o, text);
    case OPTION_JOURNAL:
        o->journal = text;
        return *text != 0 || wrong("--journal: the path is empty");
    case OPTION_JOURNAL_SIZE:
        return take_journal_size(o, text);
    case OPTION_NO_JOURNAL:
        o->no_journal = true;
        return true;
    case OPTION_MAX_MESSAGE:
        return take_max_message(o, text);
    case OPTION_SECRET_FILE:
        o->secret_file = text;
        return *text != 0 || wrong("--secret-file: the path is empty");
    case OPTION_TLS_CERT:
        o->tls_cert = text;
        return *text != 0 || wrong("--tls-cert: the path is empty");
    case OPTION_TLS_KEY:
        o->tls_key = text;
        return *text != 0 || wrong("--tls-key: the path is empty");
    case OPTION_TLS_CLIENT_CA:
        o->tls_client_ca = text;
        return *text != 0 || wrong("--tls-client-ca: the path is empty");
    case OPTION_TLS_CLIENT_CRL:
        o->tls_client_crl = text;
        return *text != 0 || wrong("--tls-client-crl: the path is empty");
    case OPTION_INSECURE:
        o->insecure = true;
        return true;
    case OPTION_PEER_CONNECTIONS:
    case OPTION_PEER_SESSIONS:
    case OPTION_PEER_SUBSCRIPTIONS:
    case OPTION_PEER_BYTES:
        return take_peer_limit(o, (enum peer_limit)(option - OPTION_PEER_CONNECTIONS), text);
    case OPTION_LOG_LEVEL:
        if ((level = log_level_parse(text)) < 0)
            return wrong("--log-level %s: it must be error, warn, info or debug", text);
        o->log_level = (enum log_level)level;
        return true;
    case OPTION_ADMIN:
        if ((fault = listen_host_port_parse(&o->admin, text)) != NULL)
            return wrong("--admin %s: %s", text, fault);
        o->admin_given = true;
        return true;
    case OPTION_READY_FD:
        if (!parse_number(text, 0, INT_MAX, &number))
            return wrong("--ready-fd %s: it must be the number of an open descriptor", text);
        o->ready_fd = (int)number;
        return true;
    case OPTION_BACKGROUND:
        o->background = true;
        return true;
    default: /* OPTION_EXIT_WHEN_IDLE */
        if (!parse_number(text, 1, 86400, &number))
            return wrong("--exit-when-idle %s: it must be a number of seconds from 1 to 86400",
                         text);
        o->exit_when_idle = (unsigned)number;
        return true;
    }
}

/* Relative paths would be looked for in another folder. */
static bool check_background(const struct options *o)
{
    const struct {
        const char *option, *path;
    } paths[] = {{"--journal", o->journal},
                 {"--secret-file", o->secret_file},
                 {"--tls-cert", o->tls_cert},
                 {"--tls-key", o->tls_key},
                 {"--tls-client-ca", o->tls_client_ca},
                 {"--tls-client-crl", o->tls_client_crl}};
    if (o->ready_fd >= 0)
        return wrong("--background tells by its end that the sockets listen: leave --ready-fd out");
    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++)
        if (paths[i].path != NULL && paths[i].path[0] != '/')
            return wrong("%s %s: with --background, which works in /, the path must be absolute",
                         paths[i].option, paths[i].path);
    return true;
}

static bool check_tls(const struct options *o)
{
    bool listens = false;
    for (unsigned i = 0; i < o->listen_count; i++)
        listens |= o->listen[i].tls;
    if (listens && o->tls_cert == NULL)
        return wrong("--listen tls+tcp:// needs a certificate: give --tls-cert and --tls-key");
    if (!listens && (o->tls_cert != NULL || o->tls_key != NULL || o->tls_client_ca != NULL))
        return wrong("--tls-cert, --tls-key and --tls-client-ca are for --listen "
                     "tls+tcp://host:port, which is missing");
    if (o->tls_client_crl != NULL && o->tls_client_ca == NULL)
        return wrong("--tls-client-crl is for the clients of --tls-client-ca, which is missing");
    return true;
}

static bool check(const struct options *o)
{
    if (o->listen_count == 0)
        return wrong("--listen is missing, for example --listen ipc:///run/brokerd/brokerd.sock");
    if (o->no_journal && o->journal != NULL)
        return wrong("--journal and --no-journal exclude each other");
    if ((o->background && !check_background(o)) || !check_tls(o))
        return false;
    for (unsigned i = 0; i < o->listen_count; i++)
        if (o->listen[i].transport == SP_TCP && !o->listen[i].tls && !o->insecure &&
            o->secret_file == NULL && !listen_is_loopback(&o->listen[i]))
            return wrong("--listen tcp://%s:%s reaches beyond this machine and there is no "
                         "authentication: give --secret-file, use tls+tcp:// or a loopback address "
                         "such as 127.0.0.1, or say --insecure",
                         o->listen[i].host, o->listen[i].port);
    if (o->admin_given && !o->insecure && !listen_is_loopback(&o->admin))
        return wrong("--admin %s:%s reaches beyond this machine: use a loopback address, or say "
                     "--insecure",
                     o->admin.host, o->admin.port);
    return true;
}

enum options_result options_parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){.journal_size = 64 << 20,
                          .max_message = 8 << 20,
                          .log_level = LOG_LEVEL_INFO,
                          .peer_max = {[PEER_CONNECTIONS] = 4096,
                                       [PEER_SESSIONS] = 4096,
                                       [PEER_SUBSCRIPTIONS] = 16 << 20,
                                       [PEER_BYTES] = 1 << 30},
                          .ready_fd = -1};
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":l:Vh", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            return OPTIONS_EXIT_OK;
        }
        if (option == 'V') {
            puts("brokerd " BROKERD_VERSION);
            return OPTIONS_EXIT_OK;
        }
        const char *given = argv[optind - 1];
        bool ok = option == '?'   ? wrong("unknown option %s", given)
                  : option == ':' ? wrong("%s needs a value", given)
                                  : take(o, option, optarg);
        if (!ok)
            return OPTIONS_EXIT_USAGE;
    }
    if (optind < argc) {
        wrong("unexpected argument %s: sockets are given as --listen URL", argv[optind]);
        return OPTIONS_EXIT_USAGE;
    }
    return check(o) ? OPTIONS_RUN : OPTIONS_EXIT_USAGE;
}
