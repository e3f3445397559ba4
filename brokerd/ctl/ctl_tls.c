#include "ctl_tls.h"
#include <errno.h>
#include <nng/supplemental/tls/tls.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PEM_MAX = 256 * 1024, AUTHORITIES_MAX = 1024 * 1024 };

static const char scheme[] = "tls+tcp://";

bool ctl_tls_is_wanted(const struct ctl_options *options)
{
    return strncmp(options->url, scheme, sizeof(scheme) - 1) == 0;
}

/* Where Debian, Fedora, and Alpine or macOS keep them. libnng knows no default. */
static const char *system_authorities(void)
{
    static const char *const files[] = {"/etc/ssl/certs/ca-certificates.crt",
                                        "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"};
    const char *given = getenv("SSL_CERT_FILE");
    if (given != NULL && *given != 0)
        return given;
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
        if (access(files[i], R_OK) == 0)
            return files[i];
    return NULL;
}

/* The host of the URL, without brackets; false when it does not fit. */
static bool host_of(const char *url, char *host, size_t size)
{
    const char *start = url + sizeof(scheme) - 1;
    const char *end = *start == '[' ? strchr(++start, ']') : strrchr(start, ':');
    size_t length = end != NULL ? (size_t)(end - start) : strlen(start);
    if (length == 0 || length >= size)
        return false;
    memcpy(host, start, length);
    host[length] = 0;
    return true;
}

static int fail_file(const char *option, const char *path, int error)
{
    const char *text = access(path, R_OK) != 0 ? strerror(errno) : nng_strerror(error);
    return ctl_fail("the file of %s, %s, cannot be used: %s", option, path, text);
}

/* The whole of a PEM file as a string; false after one printed line. */
static bool slurp(const char *option, const char *path, char *out, size_t size)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        fail_file(option, path, NNG_ENOENT);
        return false;
    }
    setvbuf(file, NULL, _IONBF, 0); /* no copy of a key in a stdio buffer */
    size_t length = fread(out, 1, size - 1, file);
    const char *fault = ferror(file) ? strerror(errno) : feof(file) ? NULL : "it is too long";
    fclose(file);
    out[length] = 0;
    if (fault != NULL)
        ctl_fail("the file of %s, %s, cannot be used: %s", option, path, fault);
    return fault == NULL;
}

/* Who may have signed the broker's certificate, and which of theirs are revoked. */
static int authorities(nng_tls_config *config, const struct ctl_options *options)
{
    static char chain[AUTHORITIES_MAX], lists[PEM_MAX];
    const char *file = options->ca_file != NULL ? options->ca_file : system_authorities();
    int error;
    if (file == NULL)
        return ctl_fail("no certificate authorities are known on this system: name those that may "
                        "have signed the broker's certificate with --ca-file FILE");
    if (options->crl_file == NULL) {
        error = nng_tls_config_ca_file(config, file);
        return error == 0 ? CTL_DONE : fail_file("--ca-file", file, error);
    }
    if (!slurp("--ca-file", file, chain, sizeof(chain)) ||
        !slurp("--crl-file", options->crl_file, lists, sizeof(lists)))
        return CTL_FAILED;
    if ((error = nng_tls_config_ca_chain(config, chain, NULL)) != 0) /* alone: it is to be blamed */
        return fail_file("--ca-file", file, error);
    error = nng_tls_config_ca_chain(config, chain, lists);
    return error == 0 ? CTL_DONE : fail_file("--crl-file", options->crl_file, error);
}

static int own_certificate(nng_tls_config *config, const struct ctl_options *options)
{
    static char cert[PEM_MAX], key[PEM_MAX];
    const char *key_file = options->key_file != NULL ? options->key_file : options->cert_file;
    if (!slurp("--cert-file", options->cert_file, cert, sizeof(cert)) ||
        !slurp("--key-file", key_file, key, sizeof(key)))
        return CTL_FAILED;
    int error = nng_tls_config_own_cert(config, cert, key, NULL);
    OPENSSL_cleanse(cert, sizeof(cert));
    OPENSSL_cleanse(key, sizeof(key));
    return error == 0 ? CTL_DONE : fail_file("--cert-file", options->cert_file, error);
}

static int fill(nng_tls_config *config, const struct ctl_options *options)
{
    char host[256];
    if (authorities(config, options) != CTL_DONE)
        return CTL_FAILED;
    if (options->cert_file != NULL && own_certificate(config, options) != CTL_DONE)
        return CTL_FAILED;
    int error = nng_tls_config_auth_mode(config, NNG_TLS_AUTH_MODE_REQUIRED);
    if (error == 0 && host_of(options->url, host, sizeof(host)))
        error = nng_tls_config_server_name(config, host);
    if (error == 0)
        error = nng_tls_config_version(config, NNG_TLS_1_2, NNG_TLS_1_3);
    if (error == NNG_ENOTSUP)
        error = nng_tls_config_version(config, NNG_TLS_1_2, NNG_TLS_1_2);
    return error == 0 ? CTL_DONE : ctl_fail("TLS cannot be set up: %s", nng_strerror(error));
}

int ctl_tls_configure(nng_dialer dialer, const struct ctl_options *options)
{
    nng_tls_config *config;
    int error = nng_tls_config_alloc(&config, NNG_TLS_MODE_CLIENT);
    if (error != 0)
        return ctl_fail("TLS cannot be set up: %s", nng_strerror(error));
    int result = fill(config, options);
    if (result == CTL_DONE && (error = nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, config)) != 0)
        result = ctl_fail("TLS cannot be set up: %s", nng_strerror(error));
    nng_tls_config_free(config);
    return result;
}
