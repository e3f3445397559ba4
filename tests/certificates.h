#ifndef TESTS_CERTIFICATES_H
#define TESTS_CERTIFICATES_H

/*
 * Authorities and certificates made on the spot (P-256, PEM files). Header only.
 */
#include <criterion/criterion.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>

struct authority {
    EVP_PKEY *key;
    X509 *certificate;
};

static inline void certificate_extend(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    cr_assert(extension != NULL && X509_add_ext(certificate, extension, -1));
    X509_EXTENSION_free(extension);
}

/* names: as in "DNS:localhost,IP:127.0.0.1", or NULL for an authority. seconds: from now to its
 * end. issuer NULL: signed by itself. */
static inline X509 *certificate_make(EVP_PKEY *key, const char *common_name, const char *names,
                                     long seconds, const struct authority *issuer)
{
    static long serial = 1;
    X509 *certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -7200);
    X509_gmtime_adj(X509_getm_notAfter(certificate), seconds);
    X509_set_pubkey(certificate, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                               (const unsigned char *)common_name, -1, -1, 0);
    X509 *signer = issuer != NULL ? issuer->certificate : certificate;
    X509_set_issuer_name(certificate, X509_get_subject_name(signer));
    certificate_extend(certificate, signer, NID_basic_constraints,
                       names == NULL ? "critical,CA:TRUE" : "CA:FALSE");
    if (names != NULL)
        certificate_extend(certificate, signer, NID_subject_alt_name, names);
    cr_assert(X509_sign(certificate, issuer != NULL ? issuer->key : key, EVP_sha256()) > 0);
    return certificate;
}

static inline struct authority authority_make(const char *name)
{
    struct authority a = {.key = EVP_EC_gen("P-256")};
    cr_assert(a.key != NULL);
    a.certificate = certificate_make(a.key, name, NULL, 86400, NULL);
    return a;
}

static inline void authority_free(struct authority *a)
{
    X509_free(a->certificate);
    EVP_PKEY_free(a->key);
}

/* key NULL: the certificate alone. */
static inline void pem_write(const char *path, X509 *certificate, EVP_PKEY *key)
{
    FILE *file = fopen(path, "we");
    cr_assert(file != NULL);
    fchmod(fileno(file), 0600);
    cr_assert(PEM_write_X509(file, certificate));
    cr_assert(key == NULL || PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL));
    fclose(file);
}

/* A certificate and its key into one file; its serial number. */
static inline long identity_write(const char *path, const char *names, long seconds,
                                  const struct authority *issuer)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = certificate_make(key, "a test", names, seconds, issuer);
    long serial = ASN1_INTEGER_get(X509_get0_serialNumber(certificate));
    pem_write(path, certificate, key);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return serial;
}

/* What an authority has revoked: the certificate with that serial number, 0 none. seconds: from now
 * to the list's end. appends: behind the lists that the file holds. */
static inline void revocation_list_write(const char *path, const struct authority *issuer,
                                         long serial, long seconds, bool appends)
{
    X509_CRL *list = X509_CRL_new();
    ASN1_TIME *from = X509_gmtime_adj(NULL, -7200), *to = X509_gmtime_adj(NULL, seconds);
    X509_CRL_set_version(list, 1);
    X509_CRL_set_issuer_name(list, X509_get_subject_name(issuer->certificate));
    X509_CRL_set1_lastUpdate(list, from);
    X509_CRL_set1_nextUpdate(list, to);
    if (serial != 0) {
        X509_REVOKED *entry = X509_REVOKED_new();
        ASN1_INTEGER *number = ASN1_INTEGER_new();
        ASN1_INTEGER_set(number, serial);
        X509_REVOKED_set_serialNumber(entry, number);
        X509_REVOKED_set_revocationDate(entry, from);
        ASN1_INTEGER_free(number);
        cr_assert(X509_CRL_add0_revoked(list, entry));
    }
    cr_assert(X509_CRL_sign(list, issuer->key, EVP_sha256()) > 0);
    FILE *file = fopen(path, appends ? "ae" : "we");
    cr_assert(file != NULL && PEM_write_X509_CRL(file, list));
    fclose(file);
    ASN1_TIME_free(from);
    ASN1_TIME_free(to);
    X509_CRL_free(list);
}

#endif
