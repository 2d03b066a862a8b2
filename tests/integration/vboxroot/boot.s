# A guest of one boot sector: prints BOOT-OK on COM1, then every key that is typed.
        .code16
        .globl  _start
_start: xor     %ax, %ax
        mov     %ax, %ds
        mov     %ax, %ss
        mov     $0x7c00, %sp
        mov     $text, %si
1:      lodsb
        test    %al, %al
        jz      2f
        call    put
        jmp     1b
2:      xor     %ah, %ah                # BIOS: wait for a key
        int     $0x16
        call    put
        jmp     2b

put:    push    %ax
        mov     $0x3fd, %dx
3:      in      %dx, %al                # until the transmitter is empty
        test    $0x20, %al
        jz      3b
        pop     %ax
        mov     $0x3f8, %dx
        out     %al, %dx
        ret

text:   .asciz  "BOOT-OK\n"
        .org    510
        .word   0xaa55
