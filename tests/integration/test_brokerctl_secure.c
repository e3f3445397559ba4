/*
 * brokerctl and a broker that is not open to everybody: its secret, and libnng's TLS against ours.
 */
#include "../certificates.h"
#include "ctl_harness.h"

/* ---- a secret ---- */

static void start_with_secret(void)
{
    static char secret[120];
    broker_prepare(&b, (const char *[]){"--no-journal", "--secret-file", secret, NULL});
    snprintf(secret, sizeof(secret), "%s/secret", b.dir);
    int fd = open(secret, O_WRONLY | O_CREAT, 0600);
    cr_assert(write(fd, "open sesame\n", 12) == 12);
    close(fd);
    broker_run(&b);
}

TestSuite(brokerctl_secret, .init = start_with_secret, .fini = end, .timeout = 60);

Test(brokerctl_secret, who_knows_it_is_served)
{
    run("brokerctl --secret-file secret publish -v news hello && BROKERD_SECRET_FILE=secret "
        "brokerctl sessions");
    expect_status(0);
    pid_t pid = start_in_background("--secret-file secret subscribe -v news");
    wait_for_text("err2", "subscribed");
    broker_signal(&b, SIGKILL);
    broker_run(&b);
    wait_for_text("err2", "began anew");
    run("brokerctl --secret-file secret publish news again");
    expect_output("");
    wait_for_text("out2", "news: again\n");
    stop(pid);
}

Test(brokerctl_secret, who_does_not_know_it_is_told_what_to_give)
{
    run("brokerctl publish news hello");
    expect_failure(1, "authentication is required", "--secret-file", NULL);
    run("echo wrong >wrong; brokerctl --secret-file wrong publish news hello");
    expect_failure(1, "authentication failed", "--secret-file", NULL);
    run("brokerctl --secret-file none publish news hello");
    expect_failure(1, "none", "No such file", NULL);
}

Test(brokerctl_secret, one_that_the_broker_does_not_ask_for_is_a_mistake, .init = start)
{
    run("echo open sesame >secret; brokerctl --secret-file secret publish news hello");
    expect_failure(1, "knows no secret", NULL);
}

/* ---- tls+tcp: libnng's TLS against ours ---- */

static char tls_url[64];

static void start_with_tls(void)
{
    static char ca_path[100], cert_path[100];
    char other[100];
    snprintf(tls_url, sizeof(tls_url), "tls+tcp://localhost:%d", free_port());
    broker_prepare(&b, (const char *[]){"--no-journal", "--listen", tls_url, "--tls-cert",
                                        cert_path, "--tls-client-ca", ca_path, NULL});
    snprintf(ca_path, sizeof(ca_path), "%s/ca.pem", b.dir);
    snprintf(cert_path, sizeof(cert_path), "%s/cert.pem", b.dir);
    struct authority ca = authority_make("the tests' authority");
    struct authority foreign = authority_make("somebody else");
    pem_write(ca_path, ca.certificate, NULL);
    long serial = identity_write(cert_path, "DNS:localhost", 86400, &ca);
    snprintf(other, sizeof(other), "%s/revoked.crl", b.dir);
    revocation_list_write(other, &ca, serial, 86400, false);
    snprintf(other, sizeof(other), "%s/none_revoked.crl", b.dir);
    revocation_list_write(other, &ca, 0, 86400, false);
    snprintf(other, sizeof(other), "%s/expired.crl", b.dir);
    revocation_list_write(other, &ca, 0, -3600, false);
    snprintf(other, sizeof(other), "%s/own.pem", b.dir);
    identity_write(other, "DNS:brokerctl", 86400, &ca);
    snprintf(other, sizeof(other), "%s/other.pem", b.dir);
    pem_write(other, foreign.certificate, NULL);
    broker_run(&b);
}

TestSuite(brokerctl_tls, .init = start_with_tls, .fini = end, .timeout = 60);

static void run_tls(const char *options)
{
    run("brokerctl --url %s %s", tls_url, options);
}

Test(brokerctl_tls, publishes_with_the_right_files)
{
    run_tls("--ca-file ca.pem --cert-file own.pem --key-file own.pem publish -v news hello");
    expect_status(0);
    run("url=%s; BROKERD_CA_FILE=ca.pem BROKERD_CERT_FILE=own.pem brokerctl ping", tls_url);
    expect_status(0);
    cr_assert(strstr(ctl.out, tls_url) != NULL || strstr(ctl.out, "brokerd") != NULL, "%s",
              ctl.out);
}

Test(brokerctl_tls, a_revoked_broker_is_refused)
{
    run_tls("--ca-file ca.pem --crl-file none_revoked.crl --cert-file own.pem publish news hello");
    expect_status(0);
    run_tls("--ca-file ca.pem --crl-file revoked.crl --cert-file own.pem publish news hello");
    expect_failure(1, "certificate is refused", "--crl-file", NULL);
    run("BROKERD_CRL_FILE=revoked.crl brokerctl --url %s --ca-file ca.pem --cert-file own.pem ping",
        tls_url);
    expect_failure(1, "certificate is refused", NULL);
    run_tls("--ca-file ca.pem --crl-file expired.crl --cert-file own.pem publish news hello");
    expect_failure(1, "certificate is refused", NULL);
    run_tls("--ca-file ca.pem --crl-file ca.pem --cert-file own.pem publish news hello");
    expect_failure(1, "the file of --crl-file, ca.pem, cannot be used", NULL);
    run_tls("--ca-file ca.pem --crl-file none.crl --cert-file own.pem publish news hello");
    expect_failure(1, "none.crl", "No such file", NULL);
}

Test(brokerctl_tls, an_authority_that_did_not_sign_is_told)
{
    run_tls("--ca-file other.pem --cert-file own.pem publish news hello");
    expect_failure(1, "certificate is refused", "--ca-file", NULL);
    run_tls("--cert-file own.pem publish news hello"); /* the system's do not know it */
    expect_failure(1, "--ca-file", NULL);
    run_tls("--ca-file ca.pem publish --timeout 1 news hello");
    expect_failure(1, "brokerd", NULL);
    broker_log_has(&b, "TLS failed: peer did not return a certificate");
    run_tls("--ca-file none.pem publish news hello");
    expect_failure(1, "none.pem", "No such file", NULL);
}
