/* What a TLS context is made of: certificates, keys, authorities and revocation lists in files. */
#include "tls_files.h"
#include "tls_filter.h"
#include <stdint.h>

static char reason[TLS_REASON_MAX];

TestSuite(tls_context, .init = files_make, .fini = files_remove, .timeout = 60);

static void refused(const struct tls_settings *settings, const char *text)
{
    cr_assert(tls_server_context_new(settings, reason) == NULL);
    cr_assert(strstr(reason, text) != NULL, "%s", reason);
    cr_assert(tls_client_context_new(settings, reason) == NULL);
    cr_assert(strstr(reason, text) != NULL, "%s", reason);
}

static struct tls_context *taken(const struct tls_settings *settings)
{
    struct tls_context *context = tls_server_context_new(settings, reason);
    cr_assert(context != NULL, "%s", reason);
    return context;
}

Test(tls_context, a_file_that_is_not_there_is_named)
{
    refused(&(struct tls_settings){.cert_file = "/nowhere/cert.pem"},
            "the certificate /nowhere/cert.pem: No such file or directory");
    refused(&(struct tls_settings){.cert_file = cert_path, .key_file = "/nowhere/key.pem"},
            "the private key /nowhere/key.pem: No such file or directory");
    refused(&(struct tls_settings){.cert_file = cert_path, .ca_file = "/nowhere/ca.pem"},
            "the CA file /nowhere/ca.pem: No such file or directory");
    refused(&(struct tls_settings){.cert_file = cert_path, .crl_file = "/nowhere/crl.pem"},
            "the revocation list /nowhere/crl.pem: No such file or directory");
}

Test(tls_context, a_file_that_holds_something_else_is_named)
{
    char garbage[96];
    strcpy(garbage, in_dir("garbage.pem"));
    FILE *file = fopen(garbage, "we");
    fputs("no certificate\n", file);
    fclose(file);
    refused(&(struct tls_settings){.cert_file = garbage}, "garbage.pem: no start line");
    refused(&(struct tls_settings){.cert_file = cert_path, .ca_file = garbage},
            "garbage.pem: no certificate or crl found");
    refused(&(struct tls_settings){.cert_file = cert_path, .crl_file = garbage},
            "garbage.pem: no start line");
    refused(&(struct tls_settings){.cert_file = cert_path, .crl_file = cert_path},
            "cert.pem: no start line");
}

Test(tls_context, a_key_of_another_certificate_is_refused)
{
    identity_write(in_dir("other.pem"), "DNS:x", 3600, &ca);
    refused(&(struct tls_settings){.cert_file = cert_path, .key_file = path},
            "key values mismatch");
    refused(&(struct tls_settings){.key_file = path}, "has no certificate beside it");
}

Test(tls_context, a_key_behind_a_passphrase_is_refused_without_asking)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    FILE *file = fopen(in_dir("locked.pem"), "we");
    PEM_write_PrivateKey(file, key, EVP_aes_128_cbc(), (const unsigned char *)"word", 4, NULL,
                         NULL);
    EVP_PKEY_free(key);
    fclose(file);
    refused(&(struct tls_settings){.cert_file = cert_path, .key_file = path}, "the private key");
}

static void ends_in(int64_t seconds, int64_t left)
{
    cr_assert_leq(left, seconds);
    cr_assert_gt(left, seconds - 100);
}

Test(tls_context, the_end_of_the_own_certificate_is_known)
{
    struct tls_context *context = taken(&(struct tls_settings){.cert_file = cert_path});
    ends_in(3600, tls_context_seconds_left(context));
    tls_context_free(context);
    context = tls_client_context_new(&(struct tls_settings){.ca_file = ca_path}, reason);
    cr_assert_eq(tls_context_seconds_left(context), INT64_MAX);
    tls_context_free(context);
}

Test(tls_context, the_first_end_of_several_revocation_lists_is_known)
{
    struct authority other = authority_make("somebody else");
    struct tls_settings settings = {.cert_file = cert_path, .ca_file = ca_path};
    struct tls_context *context = taken(&settings);
    cr_assert_eq(tls_context_crl_seconds_left(context), INT64_MAX);
    tls_context_free(context);
    settings.crl_file = in_dir("crl.pem");
    revocation_list_write(path, &ca, 0, 7200, false);
    context = taken(&settings);
    ends_in(7200, tls_context_crl_seconds_left(context));
    tls_context_free(context);
    revocation_list_write(path, &other, 0, 3600, true);
    context = taken(&settings);
    ends_in(3600, tls_context_crl_seconds_left(context));
    tls_context_free(context);
    authority_free(&other);
}
