/* A disk that is full as long as a file is there: loaded into a server by LD_PRELOAD, tables can then not grow.
 * FULL_DISK names the file. The log of the server, without which it would not live, goes on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_full(int file, off_t end) {
    const char *sign = getenv("FULL_DISK");
    if (sign == NULL || access(sign, F_OK) != 0) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    struct stat found;
    return strstr(path, "/base/") != NULL && fstat(file, &found) == 0 && end > found.st_size;
}

static off_t length_of(const struct iovec *parts, int count) {
    off_t length = 0;
    for (int i = 0; i < count; i++) length += (off_t)parts[i].iov_len;
    return length;
}

#define REAL(type, name) ((type)dlsym(RTLD_NEXT, name))

#define PWRITE(name)                                                             \
    ssize_t name(int file, const void *data, size_t size, off_t at) {            \
        if (is_full(file, at + (off_t)size)) {                                   \
            errno = ENOSPC;                                                      \
            return -1;                                                           \
        }                                                                        \
        return REAL(ssize_t (*)(int, const void *, size_t, off_t), #name)(file, data, size, at); \
    }

#define PWRITEV(name)                                                            \
    ssize_t name(int file, const struct iovec *parts, int count, off_t at) {     \
        if (is_full(file, at + length_of(parts, count))) {                       \
            errno = ENOSPC;                                                      \
            return -1;                                                           \
        }                                                                        \
        return REAL(ssize_t (*)(int, const struct iovec *, int, off_t), #name)(file, parts, count, at); \
    }

#define FALLOCATE(name)                                                          \
    int name(int file, off_t at, off_t size) {                                   \
        if (is_full(file, at + size)) return ENOSPC;                             \
        return REAL(int (*)(int, off_t, off_t), #name)(file, at, size);          \
    }

PWRITE(pwrite)
PWRITE(pwrite64)
PWRITEV(pwritev)
PWRITEV(pwritev64)
FALLOCATE(posix_fallocate)
FALLOCATE(posix_fallocate64)
