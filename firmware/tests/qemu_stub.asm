; A ROM that does for QEMU what the hypervisor does in a direct boot: makes the port writes, puts the F-segment in place
; and loads the registers of a BootState. Reads everything from a block that the test put at 1B000h.
;   00h  number of port writes (at 80h: port16, width8, 0, value32)
;   08h  cr0   10h  cr3   18h  cr4   20h  efer   28h  rax   30h  rbx   38h  rsi   40h  rsp
;   48h  GDT limit16, base32    50h  rip32, cs16    58h  data selector
; The F-segment's 64 KiB lie at 30000h until it is RAM.

%define BLOCK 0x1b000
%define HIGH(x) (0xffff0000 + x)

        org 0
        bits 16
start:  cli
        o32 lgdt [cs:gdt_pointer]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 8:HIGH(flat)

        bits 32
flat:   mov ax, 16
        mov ds, ax
        mov es, ax
        mov ss, ax

        mov ecx, [BLOCK]
        mov esi, BLOCK + 0x80
next:   test ecx, ecx
        jz copy
        movzx edx, word [esi]
        mov eax, [esi + 4]
        cmp byte [esi + 2], 2
        ja .dword
        je .word
        out dx, al
        jmp .done
.word:  out dx, ax
        jmp .done
.dword: out dx, eax
.done:  add esi, 8
        dec ecx
        jmp next

copy:   cld
        mov esi, 0x30000
        mov edi, 0xf0000
        mov ecx, 0x4000
        rep movsd

        mov eax, [BLOCK + 0x18]
        mov cr4, eax
        mov eax, [BLOCK + 0x10]
        mov cr3, eax
        mov eax, [BLOCK + 0x20]
        and eax, ~0x400                 ; LMA follows from LME and paging
        jz .no_efer
        mov ecx, 0xc0000080
        xor edx, edx
        wrmsr
.no_efer:
        mov eax, [BLOCK + 0x08]
        mov cr0, eax
        lgdt [BLOCK + 0x48]
        mov ax, [BLOCK + 0x58]
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov fs, ax
        mov gs, ax
        mov eax, [BLOCK + 0x28]
        mov ebx, [BLOCK + 0x30]
        mov esi, [BLOCK + 0x38]
        mov esp, [BLOCK + 0x40]
        xor ebp, ebp
        xor edi, edi
        xor ecx, ecx
        xor edx, edx
        jmp far dword [BLOCK + 0x50]

        align 8
gdt:    dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
        dw 23
        dd HIGH(gdt)

        times 0xfff0 - ($ - $$) db 0xff
        bits 16
        jmp start
        times 0x10000 - ($ - $$) db 0xff
