/* A layer between penstockd and the C library (LD_PRELOAD), for tests only: a disk that is full, breaks, is slow or loses
 * power, and a wall clock that jumps.
 *
 * Owned by the process that it is loaded into; called from all of its threads. The test drives it while it runs through
 * `struct control`, a file that both map (disk.py writes it): rules that make calls on files fail or wait, and an offset of
 * the wall clock. Only files under PENSTOCK_FAULTS_ROOT are concerned. What the process starts has the layer no more.
 *
 * Power loss: with PENSTOCK_FAULTS_PLATTER the layer keeps in that folder what a disk would hold if the power went off now:
 *   data/INODE-N    a file's bytes as of its last fsync or fdatasync; N tells files apart that had the same inode number
 *   names/INODE-N   a folder's entries as of the folder's last fsync, one a line: kind, INODE-N, name
 * disk.py puts a data folder together from it. A sync copies what was written since the sync before; one that a rule makes
 * fail copies nothing and forgets what it should have copied, as the page cache of Linux does. Writes through mmap are not
 * seen: of SQLite that is the -shm file, which is no part of what must survive.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { on_read = 1, on_write = 2, on_sync = 4, on_create = 8 };
enum { most_rules = 8, most_files = 1 << 18, most_fds = 65536, most_timers = 64 };

struct rule {
  char pattern[104];      /* of fnmatch, for the path below the root; empty: no rule */
  uint32_t calls;         /* on_... */
  int32_t error;          /* errno of a call that fails; 0: it only waits; below 0: the process is killed before it */
  uint32_t wait_ms;       /* before the call */
  volatile uint32_t pass; /* so many calls go through first */
  volatile uint32_t left; /* so many are concerned then */
  volatile uint32_t hits; /* counted by the layer */
};

struct control {
  volatile int64_t clock_offset_ns;
  volatile int64_t unused;
  struct rule rules[most_rules];
};

struct file { /* one inode */
  uint64_t inode;
  uint32_t generation;
  int mirror;       /* descriptor of data/INODE-N; -1: not open */
  int64_t from, to; /* written since the last sync; from >= to: nothing */
  int64_t floor;    /* cut to this length since then, at the lowest */
};

static struct control* control;
static char root[1024];
static size_t root_size;
static char platter[1024];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct file files[most_files]; /* by inode, open addressing; guarded by mutex, as is all below */
static struct {
  char* path; /* below the root; null: not watched */
  struct file* file;
} fds[most_fds];
static int timers[most_timers]; /* those that a set clock cancels; 0: none */
static uint32_t cancelled[most_timers];
static int64_t seen_offset;

#define REAL(name) ((__typeof__(&name))real_##name())
#define RESOLVE(name)                                     \
  __attribute__((unused)) static void* real_##name(void) { \
    static void* found;                                   \
    if (!found) found = dlsym(RTLD_NEXT, #name);          \
    return found;                                         \
  }

RESOLVE(open) RESOLVE(open64) RESOLVE(openat) RESOLVE(openat64) RESOLVE(mkostemp) RESOLVE(mkostemp64)
RESOLVE(fopen) RESOLVE(fopen64) RESOLVE(fclose) RESOLVE(close) RESOLVE(mkdir)
RESOLVE(read) RESOLVE(pread) RESOLVE(pread64) RESOLVE(write) RESOLVE(pwrite) RESOLVE(pwrite64)
RESOLVE(ftruncate) RESOLVE(ftruncate64) RESOLVE(fallocate) RESOLVE(fallocate64) RESOLVE(posix_fallocate)
RESOLVE(posix_fallocate64) RESOLVE(fsync) RESOLVE(fdatasync)
RESOLVE(clock_gettime) RESOLVE(gettimeofday) RESOLVE(time) RESOLVE(timerfd_settime)

__attribute__((constructor)) static void begin(void) {
  const char* where = getenv("PENSTOCK_FAULTS");
  const char* below = getenv("PENSTOCK_FAULTS_ROOT");
  const char* keeps = getenv("PENSTOCK_FAULTS_PLATTER");
  unsetenv("LD_PRELOAD");
  if (!where || !below) return;
  root_size = (size_t)snprintf(root, sizeof root, "%s", below);
  if (keeps) snprintf(platter, sizeof platter, "%s", keeps);
  const int fd = REAL(open)(where, O_RDWR | O_CLOEXEC);
  if (fd < 0) abort();
  void* shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REAL(close)(fd);
  if (shared == MAP_FAILED) abort();
  control = shared;
}

/* ---- rules ---- */

static void sleep_ms(uint32_t ms) {
  struct timespec left = {ms / 1000, (long)(ms % 1000) * 1000000L};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

/* The error that a call on `path` (below the root) must have; 0: none. Waits as the rules say. */
static int verdict(const char* path, uint32_t call) {
  if (!control || !path) return 0;
  for (int i = 0; i < most_rules; ++i) {
    struct rule* r = &control->rules[i];
    if (!r->pattern[0] || !(r->calls & call) || fnmatch(r->pattern, path, 0) != 0) continue;
    pthread_mutex_lock(&mutex);
    const int passes = r->pass > 0 || r->left == 0;
    if (r->pass > 0) {
      --r->pass;
    } else if (r->left > 0) {
      --r->left;
      ++r->hits;
    }
    pthread_mutex_unlock(&mutex);
    if (passes) continue;
    if (r->wait_ms) sleep_ms(r->wait_ms);
    if (r->error < 0) kill(getpid(), SIGKILL);
    if (r->error) return r->error;
  }
  return 0;
}

/* ---- which file a descriptor is of ---- */

static const char* below_root(const char* path) {
  if (!control || root_size == 0 || strncmp(path, root, root_size) != 0) return NULL;
  if (path[root_size] == '\0') return ".";
  return path[root_size] == '/' ? path + root_size + 1 : NULL;
}

/* With the mutex. A new file of an inode that another one had gets a new generation. */
static struct file* file_of(uint64_t inode, int is_new) {
  uint64_t at = inode % most_files;
  for (int tried = 0; files[at].inode != 0 && files[at].inode != inode; ++tried) {
    if (tried == most_files) abort();
    at = (at + 1) % most_files;
  }
  struct file* found = &files[at];
  if (found->inode == 0) *found = (struct file){.inode = inode, .mirror = -1, .floor = INT64_MAX};
  if (is_new) {
    if (found->mirror >= 0) REAL(close)(found->mirror);
    found->mirror = -1;
    found->from = found->to = 0;
    found->floor = INT64_MAX;
    ++found->generation;
  }
  return found;
}

static void forget(int fd) {
  if (fd < 0 || fd >= most_fds || !fds[fd].path) return;
  pthread_mutex_lock(&mutex);
  free(fds[fd].path);
  fds[fd].path = NULL;
  fds[fd].file = NULL;
  pthread_mutex_unlock(&mutex);
}

static void remember(int fd, const char* path, int is_new) {
  struct stat info;
  if (fd < 0 || fd >= most_fds) return;
  forget(fd);
  if (!path || fstat(fd, &info) != 0) return;
  pthread_mutex_lock(&mutex);
  fds[fd].path = strdup(path);
  fds[fd].file = file_of(info.st_ino, is_new);
  pthread_mutex_unlock(&mutex);
}

static const char* path_of(int fd) { return control && fd >= 0 && fd < most_fds ? fds[fd].path : NULL; }

/* ---- the platter ---- */

static void wrote(int fd, int64_t from, int64_t to) {
  if (!platter[0] || from >= to) return;
  pthread_mutex_lock(&mutex);
  struct file* f = fds[fd].file;
  if (f) {
    if (f->from >= f->to) {
      f->from = from;
      f->to = to;
    } else {
      if (from < f->from) f->from = from;
      if (to > f->to) f->to = to;
    }
  }
  pthread_mutex_unlock(&mutex);
}

static void cut(int fd, int64_t length) {
  pthread_mutex_lock(&mutex);
  if (platter[0] && fds[fd].file && length < fds[fd].file->floor) fds[fd].file->floor = length;
  pthread_mutex_unlock(&mutex);
}

/* With the mutex. */
static int mirror_of(struct file* f) {
  if (f->mirror >= 0) return f->mirror;
  char name[1200];
  snprintf(name, sizeof name, "%s/data/%llu-%u", platter, (unsigned long long)f->inode, f->generation);
  f->mirror = REAL(open)(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (f->mirror < 0) abort();
  return f->mirror;
}

/* With the mutex. */
static void copy_file(int fd, struct file* f) {
  char through[64];
  snprintf(through, sizeof through, "/proc/self/fd/%d", fd);
  const int in = REAL(open)(through, O_RDONLY | O_CLOEXEC);
  const int out = mirror_of(f);
  struct stat info;
  if (in < 0 || fstat(in, &info) != 0) abort();
  if (f->floor < INT64_MAX && REAL(ftruncate)(out, f->floor) != 0) abort();
  static char block[1 << 18];
  for (int64_t at = f->from; at < f->to;) {
    const int64_t want = f->to - at < (int64_t)sizeof block ? f->to - at : (int64_t)sizeof block;
    const ssize_t got = REAL(pread)(in, block, (size_t)want, at);
    if (got <= 0) break;
    if (REAL(pwrite)(out, block, (size_t)got, at) != got) abort();
    at += got;
  }
  if (REAL(ftruncate)(out, info.st_size) != 0) abort();
  REAL(close)(in);
}

/* With the mutex. */
static void copy_names(int fd, const struct file* f) {
  char through[64], name[1200], draft[1210];
  snprintf(through, sizeof through, "/proc/self/fd/%d", fd);
  snprintf(name, sizeof name, "%s/names/%llu-%u", platter, (unsigned long long)f->inode, f->generation);
  snprintf(draft, sizeof draft, "%s.new", name);
  DIR* folder = opendir(through);
  FILE* out = REAL(fopen)(draft, "w");
  if (!folder || !out) abort();
  for (const struct dirent* one = readdir(folder); one; one = readdir(folder)) {
    struct stat info;
    if (strcmp(one->d_name, ".") == 0 || strcmp(one->d_name, "..") == 0) continue;
    if (fstatat(dirfd(folder), one->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
    fprintf(out, "%c %llu-%u %s\n", S_ISDIR(info.st_mode) ? 'd' : 'f', (unsigned long long)info.st_ino,
            file_of(info.st_ino, 0)->generation, one->d_name);
  }
  closedir(folder);
  REAL(fclose)(out);
  if (rename(draft, name) != 0) abort();
}

static int sync_to_platter(int fd, int failure) {
  struct stat info;
  pthread_mutex_lock(&mutex);
  struct file* f = fds[fd].file;
  if (f && fstat(fd, &info) == 0) {
    if (S_ISDIR(info.st_mode)) {
      if (!failure) copy_names(fd, f);
    } else {
      if (!failure) copy_file(fd, f);
      f->from = f->to = 0;
      f->floor = INT64_MAX;
    }
  }
  pthread_mutex_unlock(&mutex);
  return 0;
}

/* ---- calls: opening and closing ---- */

/* One at a time: of two who make the same file, one finds it made. */
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

static int open_now(void* real, int folder, const char* path, const char* below, int flags, mode_t mode) {
  struct stat before;
  const int creates = below && (flags & O_CREAT) && lstat(path, &before) != 0;
  if (creates) {
    const int failure = verdict(below, on_create);
    if (failure) {
      errno = failure;
      return -1;
    }
  }
  const int fd = folder == -1 ? ((int (*)(const char*, int, ...))real)(path, flags, mode)
                              : ((int (*)(int, const char*, int, ...))real)(folder, path, flags, mode);
  const int saved = errno;
  if (fd >= 0) remember(fd, below, creates);
  if (fd >= 0 && below && (flags & O_TRUNC)) cut(fd, 0);
  errno = saved;
  return fd;
}

static int open_with(void* real, int folder, const char* path, int flags, mode_t mode) {
  const char* below = below_root(path);
  const int may_make = below && (flags & O_CREAT);
  if (may_make) pthread_mutex_lock(&making);
  const int fd = open_now(real, folder, path, below, flags, mode);
  if (may_make) pthread_mutex_unlock(&making);
  return fd;
}

#define MODE_OF(flags)              \
  mode_t mode = 0;                  \
  if ((flags) & (O_CREAT | 020000000)) { \
    va_list rest;                   \
    va_start(rest, flags);          \
    mode = va_arg(rest, mode_t);    \
    va_end(rest);                   \
  }

int open(const char* path, int flags, ...) {
  MODE_OF(flags)
  return open_with(real_open(), -1, path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  MODE_OF(flags)
  return open_with(real_open64(), -1, path, flags, mode);
}
int openat(int folder, const char* path, int flags, ...) {
  MODE_OF(flags)
  return open_with(real_openat(), folder, path, flags, mode);
}
int openat64(int folder, const char* path, int flags, ...) {
  MODE_OF(flags)
  return open_with(real_openat64(), folder, path, flags, mode);
}
int mkostemp(char* pattern, int flags) {
  const int fd = REAL(mkostemp)(pattern, flags);
  if (fd >= 0) remember(fd, below_root(pattern), 1);
  return fd;
}
int mkostemp64(char* pattern, int flags) {
  const int fd = REAL(mkostemp64)(pattern, flags);
  if (fd >= 0) remember(fd, below_root(pattern), 1);
  return fd;
}
static FILE* fopen_with(FILE* (*real)(const char*, const char*), const char* path, const char* how) {
  struct stat before;
  const char* below = below_root(path);
  const int is_new = below && lstat(path, &before) != 0;
  FILE* opened = real(path, how);
  if (opened) remember(fileno(opened), below, is_new);
  if (opened && below && how[0] == 'w') cut(fileno(opened), 0);
  return opened;
}
FILE* fopen(const char* path, const char* how) { return fopen_with(REAL(fopen), path, how); }
FILE* fopen64(const char* path, const char* how) { return fopen_with(REAL(fopen64), path, how); }
int fclose(FILE* file) {
  forget(fileno(file));
  return REAL(fclose)(file);
}
int close(int fd) {
  forget(fd);
  return REAL(close)(fd);
}
int mkdir(const char* path, mode_t mode) {
  const char* below = below_root(path);
  const int failure = verdict(below, on_create);
  if (failure) {
    errno = failure;
    return -1;
  }
  const int made = REAL(mkdir)(path, mode);
  struct stat info;
  if (made == 0 && below && stat(path, &info) == 0) {
    pthread_mutex_lock(&mutex);
    file_of(info.st_ino, 1);
    pthread_mutex_unlock(&mutex);
  }
  return made;
}

/* ---- calls: reading and writing ---- */

static int take_cancelled(int fd) {
  int was = 0;
  for (int i = 0; i < most_timers; ++i) {
    if (timers[i] == fd && __atomic_exchange_n(&cancelled[i], 0, __ATOMIC_SEQ_CST)) was = 1;
  }
  return was;
}

ssize_t read(int fd, void* to, size_t size) {
  const int failure = verdict(path_of(fd), on_read);
  if (failure) {
    errno = failure;
    return -1;
  }
  const ssize_t got = REAL(read)(fd, to, size);
  if (control && size == sizeof(uint64_t) && take_cancelled(fd)) {
    errno = ECANCELED;
    return -1;
  }
  return got;
}

static ssize_t pread_with(ssize_t (*real)(int, void*, size_t, off_t), int fd, void* to, size_t size, off_t at) {
  const int failure = verdict(path_of(fd), on_read);
  if (failure) {
    errno = failure;
    return -1;
  }
  return real(fd, to, size, at);
}
ssize_t pread(int fd, void* to, size_t size, off_t at) { return pread_with(REAL(pread), fd, to, size, at); }
ssize_t pread64(int fd, void* to, size_t size, off_t at) { return pread_with(REAL(pread64), fd, to, size, at); }

/* How many bytes of a write go through; 0: `*failure` does. A disk that gets full takes a part of them first. */
static size_t admitted(int fd, size_t size, int* failure) {
  *failure = verdict(path_of(fd), on_write);
  if (!*failure) return size;
  if (*failure == ENOSPC && size > 512) return size / 2;
  return 0;
}

static int64_t place_of_write(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  struct stat info;
  if (flags >= 0 && (flags & O_APPEND) && fstat(fd, &info) == 0) return info.st_size;
  return lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void* bytes, size_t size) {
  const char* path = path_of(fd);
  if (!path) return REAL(write)(fd, bytes, size);
  int failure = 0;
  const size_t most = admitted(fd, size, &failure);
  if (most == 0 && size > 0) {
    errno = failure;
    return -1;
  }
  const int64_t at = platter[0] ? place_of_write(fd) : 0;
  const ssize_t done = REAL(write)(fd, bytes, most);
  if (done > 0) wrote(fd, at, at + done);
  return done;
}

static ssize_t pwrite_with(ssize_t (*real)(int, const void*, size_t, off_t), int fd, const void* bytes, size_t size,
                           off_t at) {
  if (!path_of(fd)) return real(fd, bytes, size, at);
  int failure = 0;
  const size_t most = admitted(fd, size, &failure);
  if (most == 0 && size > 0) {
    errno = failure;
    return -1;
  }
  const ssize_t done = real(fd, bytes, most, at);
  if (done > 0) wrote(fd, at, at + done);
  return done;
}
ssize_t pwrite(int fd, const void* b, size_t n, off_t at) { return pwrite_with(REAL(pwrite), fd, b, n, at); }
ssize_t pwrite64(int fd, const void* b, size_t n, off_t at) { return pwrite_with(REAL(pwrite64), fd, b, n, at); }

static int resize_with(int (*real)(int, off_t), int fd, off_t length) {
  struct stat info;
  /* A full disk lets files be cut. */
  const int grows = path_of(fd) && fstat(fd, &info) == 0 && length > info.st_size;
  const int failure = grows ? verdict(path_of(fd), on_write) : 0;
  if (failure) {
    errno = failure;
    return -1;
  }
  const int done = real(fd, length);
  if (done == 0 && path_of(fd)) cut(fd, length);
  return done;
}
int ftruncate(int fd, off_t length) { return resize_with(REAL(ftruncate), fd, length); }
int ftruncate64(int fd, off_t length) { return resize_with(REAL(ftruncate64), fd, length); }

int fallocate(int fd, int mode, off_t at, off_t size) {
  const int failure = verdict(path_of(fd), on_write);
  if (!failure) return REAL(fallocate)(fd, mode, at, size);
  errno = failure;
  return -1;
}
int fallocate64(int fd, int mode, off_t at, off_t size) { return fallocate(fd, mode, at, size); }
int posix_fallocate(int fd, off_t at, off_t size) {
  const int failure = verdict(path_of(fd), on_write);
  return failure ? failure : REAL(posix_fallocate)(fd, at, size);
}
int posix_fallocate64(int fd, off_t at, off_t size) { return posix_fallocate(fd, at, size); }

static int sync_with(int (*real)(int), int fd) {
  const char* path = path_of(fd);
  if (!path) return real(fd);
  const int failure = verdict(path, on_sync);
  if (platter[0]) sync_to_platter(fd, failure);
  if (!failure) return platter[0] ? 0 : real(fd);
  errno = failure;
  return -1;
}
int fsync(int fd) { return sync_with(REAL(fsync), fd); }
int fdatasync(int fd) { return sync_with(REAL(fdatasync), fd); }

/* ---- calls: the wall clock ---- */

/* Whoever asks for the time first after a jump tells the timers that a set clock cancels. */
static int64_t offset(void) {
  if (!control) return 0;
  const int64_t now = control->clock_offset_ns;
  if (__atomic_exchange_n(&seen_offset, now, __ATOMIC_SEQ_CST) != now) {
    const struct itimerspec at_once = {.it_value = {0, 1}};
    for (int i = 0; i < most_timers; ++i) {
      if (timers[i] == 0) continue;
      cancelled[i] = 1;
      REAL(timerfd_settime)(timers[i], 0, &at_once, NULL);
    }
  }
  return now;
}

int clock_gettime(clockid_t clock, struct timespec* now) {
  const int done = REAL(clock_gettime)(clock, now);
  const int64_t shift = offset(); /* also when another clock is asked: a daemon at rest asks for no time of day */
  if (done != 0 || shift == 0 || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return done;
  const int64_t ns = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + shift;
  now->tv_sec = ns / 1000000000;
  now->tv_nsec = ns % 1000000000;
  return 0;
}
int gettimeofday(struct timeval* now, void* zone) {
  struct timespec exact;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}
time_t time(time_t* to) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (to) *to = now.tv_sec;
  return now.tv_sec;
}

int timerfd_settime(int fd, int flags, const struct itimerspec* next, struct itimerspec* before) {
  if (control && (flags & 2)) { /* TFD_TIMER_CANCEL_ON_SET */
    int place = -1;
    for (int i = most_timers - 1; i >= 0; --i) {
      if (timers[i] == fd || timers[i] == 0) place = i;
      if (timers[i] == fd) break;
    }
    if (place >= 0) timers[place] = fd;
  }
  return REAL(timerfd_settime)(fd, flags, next, before);
}
