/* A layer between a process and its disk, loaded by LD_PRELOAD: it counts the calls that change what lies below a
 * folder, fails one of them or all from one on, and records them with their data. See disk.py.
 *
 * Nothing is really synced: what a sync would have kept is found from the record, and tests do not wait for a disk. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum Mode { COUNT, ONCE, FULL, GONE, KILL };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static enum Mode mode;
static long calls, fail_at;
static int record_fd = -1, cut_short;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static ssize_t plain_write(int fd, const void *data, size_t size) {
    REAL(write);
    return real(fd, data, size);
}

/* Watch a folder from here on; the record, if there is one, goes to a file elsewhere. */
void disk_watch(const char *folder, const char *record) {
    snprintf(root, sizeof root, "%s", folder);
    calls = fail_at = cut_short = 0;
    mode = COUNT;
    if (record_fd >= 0) close(record_fd);
    record_fd = record ? open(record, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;
}

void disk_arm(int new_mode, long nth) {
    mode = new_mode;
    fail_at = nth;
}

long disk_calls(void) { return calls; }

static void put(const char *call, const char *path, const char *other, long long offset, const void *data, size_t size) {
    char line[2 * PATH_MAX + 100];
    if (record_fd < 0) return;
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\t%lld\t%zu\n", call, path, other, offset, size);
    plain_write(record_fd, line, length);
    if (size) plain_write(record_fd, data, size);
}

/* A remark of the process itself, in its place among the calls. */
void disk_note(const char *text) { put("note", text, "", 0, NULL, 0); }

/* The absolute path of a name as openat and its kin take it. */
static const char *path_at(int folder, const char *name, char *path) {
    char link[64], base[PATH_MAX] = "";
    if (name && name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return path;
    }
    if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, base, sizeof base - 1);
    base[length > 0 ? length : 0] = 0;
    if (name) snprintf(path, PATH_MAX, "%.2000s/%.2000s", base, name);
    else snprintf(path, PATH_MAX, "%s", base);
    return path;
}

static const char *path_of(int fd, char *path) { return path_at(fd, NULL, path); }

static int below(const char *path) {
    size_t length = strlen(root);
    return length && !strncmp(path, root, length) && (!path[length] || path[length] == '/');
}

/* Count a call; the error it shall fail with, or 0. `takes_space`: a full disk refuses it. */
static int fault(const char *path, int takes_space) {
    if (!below(path)) return 0;
    pthread_mutex_lock(&lock);
    long n = ++calls;
    int error = 0;
    if (fail_at && n == fail_at && mode == KILL) _exit(137);
    if (mode == ONCE && n == fail_at) error = EIO;
    if (mode == GONE && n >= fail_at) error = EIO;
    if (mode == FULL && n >= fail_at && takes_space) error = ENOSPC;
    pthread_mutex_unlock(&lock);
    return error;
}

#define FAIL_IF(error) do { int e = (error); if (e) { errno = e; return -1; } } while (0)

/* The disk fills up in the midst of the first write that it refuses: half of it is there. */
static size_t amount(int *error, size_t size) {
    if (*error == ENOSPC && !cut_short && size > 1) {
        cut_short = 1;
        *error = 0;
        return size / 2;
    }
    return size;
}

ssize_t write(int fd, const void *data, size_t size) {
    char path[PATH_MAX];
    int error = fault(path_of(fd, path), 1);
    size = amount(&error, size);
    FAIL_IF(error);
    if (below(path)) {
        int append = fcntl(fd, F_GETFL) & O_APPEND;
        put("write", path, "", lseek(fd, 0, append ? SEEK_END : SEEK_CUR), data, size);
    }
    return plain_write(fd, data, size);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    REAL(pwrite64);
    char path[PATH_MAX];
    int error = fault(path_of(fd, path), 1);
    size = amount(&error, size);
    FAIL_IF(error);
    if (below(path)) put("write", path, "", offset, data, size);
    return real(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    char path[PATH_MAX];
    if (!below(path_of(fd, path))) return real(fd, parts, count);
    /* As if the first part alone had fitted; callers go on with the rest. */
    return count ? write(fd, parts[0].iov_base, parts[0].iov_len) : 0;
}

static int sync_of(int fd) {
    char path[PATH_MAX];
    FAIL_IF(fault(path_of(fd, path), 0));
    if (below(path)) put("sync", path, "", 0, NULL, 0);
    return 0;
}

int fsync(int fd) { return sync_of(fd); }
int fdatasync(int fd) { return sync_of(fd); }

int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    char path[PATH_MAX];
    FAIL_IF(fault(path_of(fd, path), 0));
    if (below(path)) put("truncate", path, "", size, NULL, 0);
    return real(fd, size);
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int openat64(int folder, const char *name, int flags, ...) {
    REAL(openat64);
    char path[PATH_MAX];
    va_list rest;
    va_start(rest, flags);
    mode_t permissions = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if (flags & O_CREAT && below(path_at(folder, name, path))) {
        int new = access(path, F_OK) != 0;
        FAIL_IF(fault(path, new));
        if (new) put("create", path, "", 0, NULL, 0);
        else if (flags & O_TRUNC) put("truncate", path, "", 0, NULL, 0);
    }
    return real(folder, name, flags, permissions);
}

int openat(int folder, const char *name, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t permissions = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return openat64(folder, name, flags, permissions);
}

int open64(const char *name, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t permissions = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return openat64(AT_FDCWD, name, flags, permissions);
}

int open(const char *name, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t permissions = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return openat64(AT_FDCWD, name, flags, permissions);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    REAL(renameat);
    char old[PATH_MAX], new[PATH_MAX];
    path_at(from_folder, from, old);
    path_at(to_folder, to, new);
    FAIL_IF(fault(new, 1));
    if (below(new)) put("rename", old, new, 0, NULL, 0);
    return real(from_folder, from, to_folder, to);
}

int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    REAL(linkat);
    char old[PATH_MAX], new[PATH_MAX];
    path_at(from_folder, from, old);
    path_at(to_folder, to, new);
    FAIL_IF(fault(new, 1));
    if (below(new)) put("link", old, new, 0, NULL, 0);
    return real(from_folder, from, to_folder, to, flags);
}

int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int folder, const char *name, int flags) {
    REAL(unlinkat);
    char path[PATH_MAX];
    if (below(path_at(folder, name, path)) && !access(path, F_OK)) {
        FAIL_IF(fault(path, 0));
        put("remove", path, "", 0, NULL, 0);
    }
    return real(folder, name, flags);
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int folder, const char *name, mode_t permissions) {
    REAL(mkdirat);
    char path[PATH_MAX];
    if (below(path_at(folder, name, path)) && access(path, F_OK)) {
        FAIL_IF(fault(path, 1));
        put("mkdir", path, "", 0, NULL, 0);
    }
    return real(folder, name, permissions);
}

int mkdir(const char *name, mode_t permissions) { return mkdirat(AT_FDCWD, name, permissions); }
