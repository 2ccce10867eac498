/* Stops a process, or fills its disk, at the n-th place where it changes files below one folder.

   Preloaded (LD_PRELOAD), it stands between a program and the C library, so that writes of HDF5 and of other compiled
   code count like those of Python. FAULT_ROOT, FAULT_MODE and FAULT_N arm it from the start; fault_arm() does so later.

   mode 0: count only. mode 1: SIGKILL before the n-th change. mode 2: half of the n-th write is done, then SIGKILL.
   mode 3: n bytes fit on the disk; everything that needs room fails with ENOSPC from there on.
   mode 4: the n-th change fails once, with the error FAULT_ERRNO. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static int mode, fail_with = EIO;
static long n, count;

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void fault_arm(const char *where, int how, long at) {
  strncpy(root, where, sizeof root - 1);
  mode = how, n = at, count = 0;
}
long fault_count(void) { return count; }

__attribute__((constructor)) static void from_environment(void) {
  const char *where = getenv("FAULT_ROOT"), *how = getenv("FAULT_MODE"), *at = getenv("FAULT_N");
  if (getenv("FAULT_ERRNO")) fail_with = atoi(getenv("FAULT_ERRNO"));
  if (where && how && at) fault_arm(where, atoi(how), atol(at));
}

static int below(const char *path) {
  size_t length = strlen(root);
  return length && path && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static int below_at(int folder, const char *path) {
  char name[PATH_MAX], link[64];
  ssize_t got;
  if (!path || !root[0]) return 0;
  if (path[0] == '/') return below(path);
  if (folder == AT_FDCWD) return getcwd(name, sizeof name) && below(name);
  snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
  got = readlink(link, name, sizeof name - 1);
  if (got <= 0) return 0;
  name[got] = 0;
  return below(name);
}

static int fd_below(int fd) {
  struct stat found;
  if (!root[0] || fstat(fd, &found) || !(S_ISREG(found.st_mode) || S_ISDIR(found.st_mode))) return 0;
  return below_at(fd, ".");
}

/* Whether a change may not be made; needs_room is what ENOSPC is for. */
static int stopped(int needs_room) {
  if (mode == 3) {
    if (needs_room && n <= 0) return errno = ENOSPC, 1;
    return 0;
  }
  count++;
  if ((mode == 1 || mode == 2) && count == n) kill(getpid(), SIGKILL), pause();
  if (mode == 4 && count == n) return errno = fail_with, 1;
  return 0;
}

/* How much of a write is done, or -1. */
static ssize_t allowed(size_t size) {
  if (mode == 3) {
    if (n <= 0 && size) return errno = ENOSPC, -1;
    if ((long)size > n) size = n;
    n -= size;
    return size;
  }
  if (mode == 2 && count + 1 == n) return size / 2;
  return stopped(1) ? -1 : (ssize_t)size;
}

static void after_write(void) {
  if (mode == 2 && count + 1 == n) kill(getpid(), SIGKILL), pause();
}

ssize_t write(int fd, const void *data, size_t size) {
  if (!fd_below(fd)) return NEXT(write)(fd, data, size);
  ssize_t some = allowed(size);
  if (some < 0) return -1;
  some = NEXT(write)(fd, data, some);
  after_write();
  return some;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
  if (!fd_below(fd)) return NEXT(pwrite)(fd, data, size, at);
  ssize_t some = allowed(size);
  if (some < 0) return -1;
  some = NEXT(pwrite)(fd, data, some, at);
  after_write();
  return some;
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  if (!fd_below(fd)) return NEXT(pwrite64)(fd, data, size, at);
  ssize_t some = allowed(size);
  if (some < 0) return -1;
  some = NEXT(pwrite64)(fd, data, some, at);
  after_write();
  return some;
}
ssize_t writev(int fd, const struct iovec *parts, int how_many) {
  if (!fd_below(fd)) return NEXT(writev)(fd, parts, how_many);
  ssize_t done = 0;
  for (int i = 0; i < how_many; i++) {
    ssize_t some = write(fd, parts[i].iov_base, parts[i].iov_len);
    if (some < 0) return done ? done : -1;
    done += some;
    if ((size_t)some < parts[i].iov_len) break;
  }
  return done;
}
ssize_t sendfile(int out, int in, off_t *at, size_t size) {
  if (fd_below(out)) return errno = EINVAL, -1; /* so that it is written by write() */
  return NEXT(sendfile)(out, in, at, size);
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t size) {
  if (fd_below(out)) return errno = EINVAL, -1;
  return NEXT(sendfile64)(out, in, at, size);
}
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags) {
  if (fd_below(out)) return errno = EINVAL, -1;
  return NEXT(copy_file_range)(in, in_at, out, out_at, size, flags);
}

#define CHANGE(kind, name, given, passed, is_ours, needs_room)    \
  kind name given {                                               \
    if ((is_ours) && stopped(needs_room)) return -1;              \
    return NEXT(name) passed;                                     \
  }
CHANGE(int, fsync, (int fd), (fd), fd_below(fd), 0)
CHANGE(int, fdatasync, (int fd), (fd), fd_below(fd), 0)
CHANGE(int, ftruncate, (int fd, off_t size), (fd, size), fd_below(fd), 0)
CHANGE(int, ftruncate64, (int fd, off64_t size), (fd, size), fd_below(fd), 0)
CHANGE(int, unlink, (const char *path), (path), below_at(AT_FDCWD, path), 0)
CHANGE(int, unlinkat, (int at, const char *path, int flags), (at, path, flags), below_at(at, path), 0)
CHANGE(int, rmdir, (const char *path), (path), below_at(AT_FDCWD, path), 0)
CHANGE(int, mkdir, (const char *path, mode_t how), (path, how), below_at(AT_FDCWD, path), 1)
CHANGE(int, mkdirat, (int at, const char *path, mode_t how), (at, path, how), below_at(at, path), 1)
CHANGE(int, rename, (const char *a, const char *b), (a, b), below_at(AT_FDCWD, b), 0)
CHANGE(int, renameat, (int i, const char *a, int j, const char *b), (i, a, j, b), below_at(j, b), 0)
CHANGE(int, link, (const char *a, const char *b), (a, b), below_at(AT_FDCWD, b), 1)
CHANGE(int, linkat, (int i, const char *a, int j, const char *b, int f), (i, a, j, b, f), below_at(j, b), 1)
CHANGE(int, symlink, (const char *text, const char *path), (text, path), below_at(AT_FDCWD, path), 1)
CHANGE(int, symlinkat, (const char *text, int at, const char *path), (text, at, path), below_at(at, path), 1)

#define OPEN(name, given, passed, at)                                                        \
  int name given {                                                                           \
    mode_t how = 0;                                                                          \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                     \
      va_list more;                                                                          \
      va_start(more, flags);                                                                 \
      how = va_arg(more, mode_t);                                                            \
      va_end(more);                                                                          \
    }                                                                                        \
    if ((flags & (O_CREAT | O_TRUNC)) && below_at(at, path) &&                              \
        stopped((flags & O_CREAT) && faccessat(at, path, F_OK, 0)))                          \
      return -1;                                                                             \
    return NEXT(name) passed;                                                                \
  }
OPEN(open, (const char *path, int flags, ...), (path, flags, how), AT_FDCWD)
OPEN(open64, (const char *path, int flags, ...), (path, flags, how), AT_FDCWD)
OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, how), folder)
OPEN(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, how), folder)
