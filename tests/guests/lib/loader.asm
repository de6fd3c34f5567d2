; A ROM that does what a Multiboot loader does last, for machines whose RAM already holds the guest: no firmware's time,
; and no firmware's traces. At INFO lies the Multiboot information, and the entry point behind it.
INFO equ 0x90000
ENTRY equ INFO + 0x7c

bits 16
org 0
start:  cli
        o32 lgdt [cs:gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 8:flat + 0xffff0000
bits 32
flat:   mov ax, 16
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov fs, ax
        mov gs, ax
        mov eax, 0x2badb002
        mov ebx, INFO
        jmp [ENTRY]

align 8
gdt:    dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:   dw 23
        dd gdt + 0xffff0000

        times 0xfff0 - ($ - $$) db 0xff
bits 16
        jmp near start ; the reset vector, in the last 64 KiB below 4 GiB
        times 0x10000 - ($ - $$) db 0xff
