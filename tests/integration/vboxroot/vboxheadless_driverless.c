/* Stands in for VBoxHeadless in the tests' throwaway root, and nowhere else.
 *
 * The real program is a set-uid stub that refuses to start without VirtualBox's kernel driver. This one
 * loads the same VBoxHeadless.so into an ordinary process. VirtualBox then runs "driverless", and a VM
 * whose execution engine is the interpreter needs no driver. None of the stub's protection is left.
 */
#include <dlfcn.h>
#include <stdio.h>

#define LIBRARIES "/usr/lib/virtualbox/"

static void *load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!library)
        fprintf(stderr, "%s\n", dlerror());
    return library;
}

int main(int argc, char **argv, char **envp)
{
    void *runtime = load(LIBRARIES "VBoxRT.so");
    if (!runtime)
        return 97;
    int (*init)(int, char ***, unsigned) = (int (*)(int, char ***, unsigned))dlsym(runtime, "RTR3InitExe");
    int status = init ? init(argc, &argv, 0) : -1;
    if (status < 0) {
        fprintf(stderr, "RTR3InitExe: %d\n", status);
        return 98;
    }
    void *headless = load(LIBRARIES "VBoxHeadless.so");
    if (!headless)
        return 99;
    int (*trusted_main)(int, char **, char **) = (int (*)(int, char **, char **))dlsym(headless, "TrustedMain");
    return trusted_main ? trusted_main(argc, argv, envp) : 99;
}
