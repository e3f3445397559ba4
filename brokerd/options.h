#ifndef BROKERD_OPTIONS_H
#define BROKERD_OPTIONS_H

/*
 * The command line of brokerd. Pure: nothing is opened here.
 */
#include "listen.h"
#include "log.h"
#include "peers.h"
#include <stdbool.h>
#include <stdint.h>

enum { OPTIONS_LISTEN_MAX = 16 };

struct options {
    struct listen_url listen[OPTIONS_LISTEN_MAX];
    unsigned listen_count;
    const char *journal;   /* path; NULL: beside the first ipc socket */
    uint64_t journal_size; /* bytes */
    bool journal_size_given;
    bool no_journal;
    uint32_t max_message;           /* bytes of a payload */
    const char *secret_file;        /* NULL: no authentication */
    const char *tls_cert, *tls_key; /* NULL: no tls+tcp; the key is in the certificate's file */
    const char *tls_client_ca;      /* NULL: clients need no certificate */
    const char *tls_client_crl;     /* NULL: none of them are looked for among revoked ones */
    bool insecure;
    uint64_t peer_max[PEER_LIMITS];
    enum log_level log_level;
    struct listen_url admin;
    bool admin_given;
    int ready_fd;            /* -1: none */
    unsigned exit_when_idle; /* seconds; 0: never */
    bool background;         /* background.h */
};

enum options_result { OPTIONS_RUN, OPTIONS_EXIT_OK, OPTIONS_EXIT_USAGE };

/* Reads argv. --help and --version print and give OPTIONS_EXIT_OK; a mistake is told on standard
 * error with what would be right (exit status 2). Strings point into argv. */
enum options_result options_parse(struct options *o, int argc, char **argv);

#endif
