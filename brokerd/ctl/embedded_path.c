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

static bool has_gemfile(const char *folder)
{
    char file[PATH_MAX + 32];
    snprintf(file, sizeof(file), "%s/Gemfile", folder);
    if (is_file(file))
        return true;
    snprintf(file, sizeof(file), "%s/gems.rb", folder);
    return is_file(file);
}

/* The real path of the folder that the file stands in; a link to the file is not followed. */
static bool folder_of(const char *file, char folder[PATH_MAX])
{
    char path[PATH_MAX];
    const char *slash = strrchr(file, '/');
    size_t length = slash ? (size_t)(slash - file) + 1 : 0;
    if (length >= sizeof(path))
        return false;
    memcpy(path, file, length);
    path[length] = 0;
    return realpath(length ? path : ".", folder) != NULL;
}

/* Bundler's Gemfile, else the nearest one at or above the current folder, else the current folder.
 */
static bool application_folder(char folder[PATH_MAX])
{
    const char *gemfile = getenv("BUNDLE_GEMFILE");
    if (gemfile && is_file(gemfile))
        return folder_of(gemfile, folder);
    char here[PATH_MAX];
    if (!getcwd(here, sizeof(here)))
        return false;
    char at[PATH_MAX];
    memcpy(at, here, sizeof(at));
    do {
        if (has_gemfile(at))
            return realpath(at, folder) != NULL;
    } while (to_parent(at));
    return realpath(here, folder) != NULL;
}

/* The system's temporary folder, the same for every process of a user: not $TMPDIR. */
static void temporary_folder(char folder[PATH_MAX])
{
    size_t length = 0;
#ifdef _CS_DARWIN_USER_TEMP_DIR
    length = confstr(_CS_DARWIN_USER_TEMP_DIR, folder, PATH_MAX);
    if (length > 1 && length <= PATH_MAX && folder[length - 2] == '/')
        folder[length - 2] = 0;
#endif
    if (length == 0 || length > PATH_MAX)
        strcpy(folder, "/tmp");
}

/* The folder of the sockets is this user's alone, or not there yet: somebody else could listen in
 * it. NULL, or what is wrong. */
static const char *fault_of(const char *folder)
{
    struct stat st;
    if (lstat(folder, &st) != 0)
        return NULL;
    if (S_ISLNK(st.st_mode))
        return "is a symbolic link";
    if (!S_ISDIR(st.st_mode))
        return "is not a directory";
    if (st.st_uid != getuid())
        return "belongs to another user";
    return st.st_mode & 077 ? "is open to other users" : NULL;
}

static const char *distrust(const char *folder, const char *fault)
{
    static char reason[PATH_MAX + 256];
    snprintf(reason, sizeof(reason),
             "%s holds the sockets of your brokers, but it %s: make it a directory of yours alone "
             "(mode 0700), or remove it, or give --url",
             folder, fault);
    return reason;
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
    char temporary[PATH_MAX], sockets[PATH_MAX + 32], *url = NULL;
    temporary_folder(temporary);
    snprintf(sockets, sizeof(sockets), "%s/brokerd-%u", temporary, (unsigned)getuid());
    const char *fault = fault_of(sockets);
    if (fault) {
        *reason = distrust(sockets, fault);
        return NULL;
    }
    if (asprintf(&url, "ipc://%s/%s.sock", sockets, hex) < 0) {
        *reason = "out of memory";
        return NULL;
    }
    return url;
}
