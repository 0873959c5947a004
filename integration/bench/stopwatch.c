// Runs commands and tells how long they took. In C and static, because what a process once weighed stays on the account of
// the programs that it becomes (ru_maxrss), and the Rust of the comparison would outweigh what is measured.
//
// stopwatch REST_MICROSECONDS TIMES FIRST COMMAND... [+ COMMAND...]...
//
// TIMES times over: rests, runs the commands in their order, and prints "NANOSECONDS KILOBYTES PROCESSOR WRITTEN": their times
// from fork to exit added up, the most memory that one of them had, the nanoseconds of processor time that they and their
// children took, and the bytes that those wrote to files on disks. "{n}" in an argument becomes FIRST, FIRST + 1 ... Every command must exit
// with 0. Their output goes to /dev/null, their errors to ours.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ARGUMENTS = 64, MAX_LENGTH = 512 };

static long long now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static char **fill_in(char **words, int count, int number) {
  static char text[MAX_ARGUMENTS][MAX_LENGTH];
  static char *filled[MAX_ARGUMENTS + 1];
  if (count > MAX_ARGUMENTS) exit(2);
  for (int i = 0; i < count; i++) {
    char *mark = strstr(words[i], "{n}");
    int before = mark ? (int)(mark - words[i]) : 0;
    filled[i] = words[i];
    if (!mark) continue;
    if (snprintf(text[i], MAX_LENGTH, "%.*s%d%s", before, words[i], number, mark + 3) >= MAX_LENGTH) exit(2);
    filled[i] = text[i];
  }
  filled[count] = NULL;
  return filled;
}

struct cost {
  long long nanoseconds, processor, written;
  long kilobytes;
};

static long long nanoseconds(struct timeval time) { return time.tv_sec * 1000000000LL + time.tv_usec * 1000LL; }

static void run(char **words, int output, struct cost *cost) {
  long long start = now();
  pid_t child = vfork();
  if (child == 0) {
    dup2(output, 0);
    dup2(output, 1);
    execv(words[0], words);
    _exit(127);
  }
  int status;
  struct rusage usage;
  if (child < 0 || wait4(child, &status, 0, &usage) != child) exit(2);
  long long end = now();
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    if (WIFEXITED(status))
      fprintf(stderr, "%s: exit status %d\n", words[0], WEXITSTATUS(status));
    else
      fprintf(stderr, "%s: signal %d\n", words[0], WTERMSIG(status));
    exit(1);
  }
  if (usage.ru_maxrss > cost->kilobytes) cost->kilobytes = usage.ru_maxrss;
  cost->nanoseconds += end - start;
  cost->processor += nanoseconds(usage.ru_utime) + nanoseconds(usage.ru_stime);
  cost->written += usage.ru_oublock * 512LL;
}

int main(int argc, char **argv) {
  if (argc < 5) return 2;
  int rest = atoi(argv[1]), times = atoi(argv[2]), first = atoi(argv[3]);
  int output = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int number = first; number < first + times; number++) {
    struct cost cost = {0};
    if (rest > 0) usleep((useconds_t)rest);
    for (int start = 4; start < argc;) {
      int end = start;
      while (end < argc && strcmp(argv[end], "+")) end++;
      run(fill_in(argv + start, end - start, number), output, &cost);
      start = end + 1;
    }
    printf("%lld %ld %lld %lld\n", cost.nanoseconds, cost.kilobytes, cost.processor, cost.written);
  }
  return 0;
}
