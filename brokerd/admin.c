#include "admin.h"

#include "query.h"
#include "server.h"
#include <errno.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include <stdlib.h>
#include <string.h>

enum { HEADERS_MAX = 8192, BODY_MAX = 0, TIMEOUT_SECONDS = 10 };

struct admin {
    struct server *server;
    struct evhttp *http;
};

static void answer(struct evhttp_request *request, int code, const char *reason,
                   struct evbuffer *body, const char *type)
{
    evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type", type);
    evhttp_send_reply(request, code, reason, body);
}

static void on_healthz(struct evhttp_request *request, void *context)
{
    struct admin *admin = context;
    bool draining = admin->server->drain_until != 0;
    struct evbuffer *body = evbuffer_new();
    if (body == NULL) {
        evhttp_send_error(request, 500, NULL);
        return;
    }
    evbuffer_add_printf(body, draining ? "draining\n" : "ok\n");
    answer(request, draining ? 503 : 200, draining ? "Draining" : "OK", body, "text/plain");
    evbuffer_free(body);
}

static void add_metric(const char *name, const char *help, bool is_counter, uint64_t value,
                       void *context)
{
    const char *suffix = is_counter ? "_total" : "";
    evbuffer_add_printf(context,
                        "# HELP brokerd_%s%s %s\n# TYPE brokerd_%s%s %s\nbrokerd_%s%s %llu\n", name,
                        suffix, help, name, suffix, is_counter ? "counter" : "gauge", name, suffix,
                        (unsigned long long)value);
}

static void on_metrics(struct evhttp_request *request, void *context)
{
    struct admin *admin = context;
    struct evbuffer *body = evbuffer_new();
    if (body == NULL) {
        evhttp_send_error(request, 500, NULL);
        return;
    }
    query_each_number(admin->server, add_metric, body);
    answer(request, 200, "OK", body, "text/plain; version=0.0.4");
    evbuffer_free(body);
}

struct admin *admin_new(struct server *server, const struct listen_url *url)
{
    struct admin *admin = calloc(1, sizeof(*admin));
    if (admin != NULL)
        admin->http = evhttp_new(server->base);
    if (admin == NULL || admin->http == NULL) {
        log_error("cannot serve --admin: out of memory");
        free(admin);
        return NULL;
    }
    admin->server = server;
    evhttp_set_allowed_methods(admin->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
    evhttp_set_max_headers_size(admin->http, HEADERS_MAX);
    evhttp_set_max_body_size(admin->http, BODY_MAX);
    evhttp_set_timeout(admin->http, TIMEOUT_SECONDS);
    evhttp_set_cb(admin->http, "/healthz", on_healthz, admin);
    evhttp_set_cb(admin->http, "/metrics", on_metrics, admin);
    const char *host = strcmp(url->host, "*") == 0 ? "0.0.0.0" : url->host;
    if (evhttp_bind_socket(admin->http, host, (uint16_t)atoi(url->port)) != 0) {
        log_error("cannot serve --admin on %s:%s: %s", url->host, url->port, strerror(errno));
        admin_free(admin);
        return NULL;
    }
    log_info("admin HTTP on http://%s:%s (/healthz, /metrics)", url->host, url->port);
    return admin;
}

void admin_free(struct admin *admin)
{
    if (admin == NULL)
        return;
    evhttp_free(admin->http);
    free(admin);
}
