#ifndef TESTS_TLS_FILES_H
#define TESTS_TLS_FILES_H

/* A folder for one test, with an authority and a certificate of it. Header only. */
#include "../certificates.h"
#include <stdlib.h>
#include <string.h>

static char dir[64], ca_path[96], cert_path[96], path[96];
static struct authority ca;

/* Until the next call. */
static inline const char *in_dir(const char *name)
{
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static inline void files_make(void)
{
    strcpy(dir, "/tmp/brokerd-tls-XXXXXX");
    cr_assert(mkdtemp(dir) != NULL);
    ca = authority_make("the tests' authority");
    strcpy(ca_path, in_dir("ca.pem"));
    pem_write(ca_path, ca.certificate, NULL);
    strcpy(cert_path, in_dir("cert.pem"));
    identity_write(cert_path, "DNS:broker.test,IP:127.0.0.1,IP:::1", 3600, &ca);
}

static inline void files_remove(void)
{
    authority_free(&ca);
    char command[96];
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

#endif
