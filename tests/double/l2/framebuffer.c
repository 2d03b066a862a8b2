/* L2's screen: QEMU's bochs-display, driven from user space since the cloud kernel has no driver for it.
 *
 *   framebuffer mode W H            switch it on
 *   framebuffer rect X Y W H RRGGBB fill a rectangle
 *   framebuffer show                W*H pixels of B, G, R and a spare byte from standard input
 *   framebuffer ppm                 what is on it now, as PPM
 *
 * Registers: QEMU, docs/specs/standard-vga.rst ("Bochs dispi interface registers", BAR 2 from 0x500).
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEVICES "/sys/bus/pci/devices"
#define ID 0x11111234u
enum { XRES = 1, YRES, BPP, ENABLE };
enum { ENABLED = 1, LINEAR = 0x40 };
static const size_t most = 4u << 20;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void *map(const char *device, const char *name, size_t size) {
    char path[512];
    snprintf(path, sizeof path, DEVICES "/%s/%s", device, name);
    int fd = open(path, O_RDWR);
    if (fd < 0) die(path);
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) die(path);
    close(fd);
    return at;
}

static void write_file(const char *device, const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, DEVICES "/%s/%s", device, name);
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) die(path);
    close(fd);
}

/* Whether the device is the display: vendor and device are the first four bytes of its configuration. */
static int is_display(const char *device) {
    char path[512];
    uint32_t id = 0;
    snprintf(path, sizeof path, DEVICES "/%s/config", device);
    int fd = open(path, O_RDONLY);
    if (fd < 0) return 0;
    ssize_t got = read(fd, &id, sizeof id);
    close(fd);
    return got == sizeof id && id == ID;
}

static void find(char *device, size_t size) {
    DIR *folder = opendir(DEVICES);
    struct dirent *one;
    while (folder && (one = readdir(folder)))
        if (one->d_name[0] != '.' && is_display(one->d_name)) {
            snprintf(device, size, "%s", one->d_name);
            closedir(folder);
            return;
        }
    fprintf(stderr, "framebuffer: there is no display\n");
    exit(1);
}

int main(int argc, char **argv) {
    char device[256];
    const char *verb = argc > 1 ? argv[1] : "";
    find(device, sizeof device);
    if (!strcmp(verb, "mode")) write_file(device, "enable", "1");
    volatile uint16_t *registers = (volatile uint16_t *)((char *)map(device, "resource2", 4096) + 0x500);
    if (!strcmp(verb, "mode") && argc == 4) {
        registers[ENABLE] = 0;
        registers[XRES] = (uint16_t)atoi(argv[2]);
        registers[YRES] = (uint16_t)atoi(argv[3]);
        registers[BPP] = 32;
        registers[ENABLE] = ENABLED | LINEAR;
        return 0;
    }
    const size_t width = registers[XRES], height = registers[YRES], size = width * height * 4;
    if (!(registers[ENABLE] & ENABLED) || size > most) {
        fprintf(stderr, "framebuffer: it is off\n");
        return 1;
    }
    uint32_t *pixels = map(device, "resource0", size);
    if (!strcmp(verb, "rect") && argc == 7) {
        const size_t left = strtoul(argv[2], 0, 10), top = strtoul(argv[3], 0, 10);
        const size_t right = left + strtoul(argv[4], 0, 10), bottom = top + strtoul(argv[5], 0, 10);
        const uint32_t colour = (uint32_t)strtoul(argv[6], 0, 16);
        for (size_t y = top; y < bottom && y < height; y++)
            for (size_t x = left; x < right && x < width; x++) pixels[y * width + x] = colour;
    } else if (!strcmp(verb, "show")) {
        uint32_t *row = malloc(width * 4);
        for (size_t y = 0; row && y < height && fread(row, 4, width, stdin) == width; y++)
            memcpy(pixels + y * width, row, width * 4);
    } else if (!strcmp(verb, "ppm")) {
        printf("P6\n%zu %zu\n255\n", width, height);
        for (size_t at = 0; at < width * height; at++) {
            const uint32_t pixel = pixels[at];
            putchar_unlocked(pixel >> 16 & 255);
            putchar_unlocked(pixel >> 8 & 255);
            putchar_unlocked(pixel & 255);
        }
        return fflush(stdout) == 0 ? 0 : 1;
    } else {
        fprintf(stderr, "framebuffer: mode W H | rect X Y W H RRGGBB | show | ppm\n");
        return 2;
    }
    return 0;
}
