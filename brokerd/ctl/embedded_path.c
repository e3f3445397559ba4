#include "embedded_path.h"
#include <limits.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* Cuts the last part off; false at the root. */
static bool to_parent(char *path)
{
    char *slash = strrchr(path, '/');
    if (!slash || path[1] == 0)
        return false;
    slash[slash == path ? 1 : 0] = 0;
    return true;
}

/* Bundler's Gemfile, else the nearest one at or above the current folder, else the current folder.
 */
static bool application_folder(char folder[PATH_MAX])
{
    const char *gemfile = getenv("BUNDLE_GEMFILE");
    if (gemfile && is_file(gemfile) && realpath(gemfile, folder))
        return to_parent(folder);
    char here[PATH_MAX];
    if (!getcwd(here, sizeof(here)))
        return false;
    char at[PATH_MAX];
    memcpy(at, here, sizeof(at));
    do {
        char file[PATH_MAX + 16];
        snprintf(file, sizeof(file), "%s/Gemfile", at);
        if (is_file(file))
            return realpath(at, folder) != NULL;
    } while (to_parent(at));
    return realpath(here, folder) != NULL;
}

/* The folder of the sockets is this user's alone, or not there yet: somebody else could listen in
 * it. */
static bool is_trusted(const char *folder)
{
    struct stat st;
    if (lstat(folder, &st) != 0)
        return true;
    return S_ISDIR(st.st_mode) && st.st_uid == getuid() && (st.st_mode & 077) == 0;
}

char *embedded_url(const char **reason)
{
    char folder[PATH_MAX];
    const char *application = getenv("BROKERD_APP");
    if (!application || !*application) {
        if (!application_folder(folder)) {
            *reason = "the current folder has no path";
            return NULL;
        }
        application = folder;
    }
    unsigned char digest[EVP_MAX_MD_SIZE];
    if (!EVP_Digest(application, strlen(application), digest, NULL, EVP_sha256(), NULL)) {
        *reason = "no SHA-256";
        return NULL;
    }
    char hex[17];
    for (int i = 0; i < 8; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    char sockets[64], *url = NULL;
    snprintf(sockets, sizeof(sockets), "/tmp/brokerd-%u", (unsigned)getuid());
    if (!is_trusted(sockets)) {
        *reason =
            "/tmp/brokerd-<uid> must be a directory of this user alone (mode 0700): remove it";
        return NULL;
    }
    if (asprintf(&url, "ipc://%s/%s.sock", sockets, hex) < 0) {
        *reason = "out of memory";
        return NULL;
    }
    return url;
}
