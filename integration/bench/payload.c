// What runs in the containers of a comparison: as little as can be, without a C library, so that it costs all the same.
//
// payload: exits with 0. payload wait: writes a byte, and exits when its input ends. payload pause: stays.

#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, PAUSE = 34, EXIT = 231 };
static long call(long number, long a, long b, long c) {
  __asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return number;
}
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");
#elif defined(__aarch64__)
enum { READ = 63, WRITE = 64, PAUSE = 73 /* ppoll */, EXIT = 94 };
static long call(long number, long a, long b, long c) {
  register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = 0;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
  return x0;
}
__asm__(".globl _start\n_start: mov x0, sp\n b begin\n");
#else
#error "no system calls for this machine"
#endif

__attribute__((noreturn, used)) void begin(char **stack) {
  long argc = (long)stack[0];
  char byte = 'r', mode = argc > 1 ? stack[2][0] : 0;
  if (mode == 'p')
    for (;;) call(PAUSE, 0, 0, 0);
  if (mode == 'w') {
    call(WRITE, 1, (long)&byte, 1);
    while (call(READ, 0, (long)&byte, 1) > 0) {
    }
  }
  for (;;) call(EXIT, 0, 0, 0);
}
